"""The demo: an RPM distribution made out of Debian packages, and sources to build for it.

Owns everything under this folder and nothing else; neither `farm` nor `workers` imports it.
"""
