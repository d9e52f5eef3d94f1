"""The farm's HTTP server. It turns requests into calls of farm.service, and answers and errors into JSON.

Owns routes, the check of tokens and hosts, and the description of the API. Not what an actor may do (farm.service).
"""
