"""Measuring: statistics, cost, devices, tables and figures, for whoever compares models; nothing here knows a task."""
