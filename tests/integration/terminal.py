"""Types into a shell on a terminal: terminal.py SHELL..., with steps as JSON on standard input: keys, and the file that they
fill. Prints what the terminal showed, and fails, if a file is not filled within a minute."""

import json
import os
import pty
import select
import signal
import sys
import time

steps = json.load(sys.stdin)
shell, terminal = pty.fork()
if shell == 0:
    os.execvp(sys.argv[1], sys.argv[1:])

shown = b""
for step in steps:
    os.write(terminal, step["keys"].encode())
    end = time.monotonic() + 60
    while not (os.path.exists(step["fills"]) and os.path.getsize(step["fills"])):
        if time.monotonic() > end:
            print(shown.decode(errors="replace"))
            os.kill(shell, signal.SIGKILL)
            sys.exit(1)
        if select.select([terminal], [], [], 0.05)[0]:
            shown += os.read(terminal, 65536)
os.kill(shell, signal.SIGKILL)
