"""Ready flows, one TOML file each."""
