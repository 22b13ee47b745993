"""Begins the process that worker processes are forked from; `catmorph.engine` has it imported there, first.

Nothing else may import it: that process would end as this one does.
"""

from catmorph.lifetime import begin

begin(0)
