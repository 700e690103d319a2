"""Measuring: statistics, cost, devices, tables and figures, for whoever compares models; of tasks it knows the intervals of the published metric alone."""
