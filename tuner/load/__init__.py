"""Drives load: schedules, request pools, and a generator in a process of its own.

An address and a schedule in, Samples out; nothing here computes a statistic.
"""
