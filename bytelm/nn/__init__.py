"""Modules that know nothing about laws or heads: norm, rotary position, attention, feed-forward, merger, cache."""
