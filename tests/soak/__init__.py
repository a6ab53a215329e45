"""Load and faults for as long as one likes, and the proof that nothing was lost.

`make soak ARGS="..."`. Every push's outcome and end is known from the outside (ledger.py), every
answer is compared with it and every byte with its digest (actors.py), and what happened stands
in a log (journal.py).
"""
