"""What TensorBoard itself reads of a folder of event files: one line "tag step value" a point.

usage: read_tensorboard.py FOLDER      exits 77 if the tensorboard package is not installed
"""
import sys

try:
    from tensorboard.backend.event_processing import event_accumulator
except ImportError as e:
    print(f"tensorboard is not installed: {e}")
    sys.exit(77)

events = event_accumulator.EventAccumulator(sys.argv[1], size_guidance={event_accumulator.SCALARS: 0})
events.Reload()
for tag in sorted(events.Tags()["scalars"]):
    for point in events.Scalars(tag):
        print(tag, point.step, point.value)
