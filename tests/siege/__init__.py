"""A siege: a real farm on several hosts under a stream of builds, an adversary that breaks it, and a judge.

`make siege` runs one. ground.py and net.py make the place, members.py and world.py the farm in it, recipes.py and
stream.py the load, wounds.py, host_wounds.py and adversary.py the attack; watcher.py looks on, facts.py collects what
is there in the end, and judge.py says what of it is wrong. There is no server over HTTP yet to be killed; when there
is one, it becomes a member of world.py and gets a line in adversary.py's table.
"""
