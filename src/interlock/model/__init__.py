"""What training and serving must have in common: signature, columns, features, manifest, package, profile, runtimes."""
