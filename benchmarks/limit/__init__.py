"""The bare limit: the same items from the same generators on nothing but a uvloop transport and msgspec.

No routing, no checks, no deadlines, no lifecycle: what a server that does all of it is measured against. Streams that
never wait join what they write into chunks of 64 KiB; the others, whose items come alone, write each at once.
"""
