"""The farm's verbs and questions, with who asks: what the command line, the library and a server call.

Owns permissions, the checks of requests, and the documents in which values leave the farm. Not how an answer is shown
(cli), nor the interface for scripts (client).
"""
