"""Search spaces, one YAML file a table: the parameter, its values and the figures of the paper; read by `vwl.tuning.space`."""
