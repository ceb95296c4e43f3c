"""What reproductions of published results should score, as YAML files for `vwl reproduce`."""
