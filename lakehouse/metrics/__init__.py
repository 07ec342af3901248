"""What a day was like in a few numbers: returns and risk, liquidity, and how well it was streamed.

`returns` has the formulas, as pure functions over arrays; `daily`, `liquidity` and `health` make rows of the
tables of their names. Statistics are floats; prices and volumes in the same rows stay exact. What is not
known is empty: no figure is ever made from a shorter history than its name says.
"""
