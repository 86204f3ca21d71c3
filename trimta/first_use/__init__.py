"""What is made when it is first used, not when its module is imported: regular expressions, modules.

A command, and a server before its first message, uses little of what its modules declare, and compiling all of it took
longer than reading the modules.
"""
