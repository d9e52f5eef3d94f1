"""Plugins that the host's dnf loads in the sandbox. The farm itself never imports them."""
