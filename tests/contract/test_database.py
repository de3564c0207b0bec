"""The control database is what its tables say, from any older state, and refuses a newer one."""

from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

import interlock.store.database as database
from interlock.core.clock import SystemClock, parse_time
from interlock.core.errors import Misconfigured
from interlock.store.tables import metadata


def scripts() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).with_name("migrations")))
    return config


def test_the_newest_migration_is_the_one_that_the_code_expects() -> None:
    assert ScriptDirectory.from_config(scripts()).get_heads() == [database.HEAD]


def test_migrations_make_the_tables_of_the_code(tmp_path: Path) -> None:
    made = database.Database(tmp_path / "control.db", create=True)
    with made.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    made.close()


def test_an_older_database_is_brought_up_with_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    made = database.Database(path, create=True)
    with made.write() as connection:
        config = scripts()
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
        connection.execute(text("insert into ticks values ('nightly', '2013-06-01T00:00:00Z', 'r')"))
        connection.execute(
            text("insert into runs values ('r', 'm', '{}', 'failed', 'ann', null, '', '', '', '', null)")
        )
        connection.execute(text("insert into steps values ('r', 1, 'train', 1, 'failed', '', '', 1, null, 'log')"))
        connection.execute(
            text("insert into schedules values ('nightly', '0 3 * * *', 'UTC', '{}', 'active', 'ann', '')")
        )
    made.close()
    again = database.Database(path)
    with again.read() as connection:
        assert connection.execute(text("select run_id, state from ticks")).one() == ("r", "made")
        assert connection.execute(text("select priority, untold from runs")).one() == (0, None)
        assert connection.execute(text("select peak_mb from steps")).one() == (None,)
        catch_up, seen_at = connection.execute(text("select catch_up, seen_at from schedules")).one()
        assert (catch_up, parse_time(seen_at) <= SystemClock().now()) == ("last", True)
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    again.close()


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    made = database.Database(path, create=True)
    with made.write() as connection:
        connection.execute(text("update alembic_version set version_num = '9999'"))
    made.close()
    with pytest.raises(Misconfigured, match="newer Interlock"):
        database.Database(path)
