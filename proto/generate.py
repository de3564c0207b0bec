"""Python messages from inference.proto: `python proto/generate.py [FOLDER]`, by default into the package."""

from __future__ import annotations

import sys
from pathlib import Path

from grpc_tools import protoc

HERE = Path(__file__).parent


def generate(folder: Path) -> None:
    """Write `inference_pb2.py`, with a descriptor pool of its own.

    A process that also holds another library's `inference` messages (tritonclient has some) could not import it otherwise.
    """
    if protoc.main(["protoc", f"-I{HERE}", f"--python_out={folder}", str(HERE / "inference.proto")]) != 0:
        raise SystemExit("protoc refused proto/inference.proto")
    made = folder / "inference_pb2.py"
    made.write_text(made.read_text().replace("_descriptor_pool.Default()", "_descriptor_pool.DescriptorPool()"))


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent / "src" / "interlock" / "model")
