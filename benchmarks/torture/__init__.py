"""The campaign that the promises on faults are held against: `make torture`, or `python -m benchmarks.torture`.

Each part tries one kind of fault many times, from a seed, and counts how often the promise held: `kills` and
`evaluations` end processes at random moments, `texts` and `files` are what a stranger could write, `flips` are single
bits that changed on the disk, and `disks` are full. `children` has the processes, `tally` the counts.
"""
