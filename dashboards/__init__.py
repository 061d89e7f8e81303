"""Dashboards: figures and reports from pandas frames."""
