"""One configuration, from the start of its server to its record.

    run       start the server and its generator -> ready -> climb -> stop -> TrialRecord
    session   probe -> every batch size once -> closed loop until warm -> closed-loop peak
    climb     a ladder of open-loop loads that brackets the sustainable rate
    overload  more than that rate for a while: does the server shed load, or stall?
    levels    one load: drive it, measure it, judge it, repeat what cannot be trusted, keep it
    stretch   one run of the load generator, with who used the processors meanwhile

One server start serves all of them.
"""

from tuner.trial.run import run_trial
from tuner.trial.task import Bench, LongLoad, Stop, Task

__all__ = ["Bench", "LongLoad", "Stop", "Task", "run_trial"]
