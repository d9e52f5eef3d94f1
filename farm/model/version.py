"""The farm's own version, in the one place that both sides may import."""

VERSION = "0.1.0"
