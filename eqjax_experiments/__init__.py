"""Runs of eqjax on real data: one command an experiment."""
