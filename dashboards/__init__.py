"""Grafana dashboards in Python; `python -m alerts write` gives their JSON to the chart."""
