"""Begins the process that worker processes are forked from; `catmorph.engine` has it imported there, first.

Nothing else may import it: that process would end as this one does.
"""

import signal

from catmorph.lifetime import begin

# Ctrl-C reaches every process of the terminal; the command itself sees to it.
signal.signal(signal.SIGINT, signal.SIG_IGN)
begin(0)
