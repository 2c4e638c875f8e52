"""Benchmarks: generated kernels side by side with their peers, interleaved in one process.

cases       what is measured: the suites, or the kinds of a spec
peers       the other systems, as calls
flex        FlexAttention for a kind
run         the measuring
host        what a call costs before the GPU starts, and how long a first call takes
machine     what a run is made on: the GPU, its limits, its clocks
results     rows of one or more runs on a GPU, as JSON
tables      rows as Markdown tables, put into the README
picture     rows under the chip's roofline
labels      where the picture's labels go
"""
