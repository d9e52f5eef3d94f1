"""The farm's pages: HTML for a browser, made on the server, with a session in place of a token for each request.

Owns sessions, forms and what a page shows. Like the API it holds no rule of its own: it calls farm.service.
"""
