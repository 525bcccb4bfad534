"""Child of sampled.py: peer.py PEER SAMPLE_BYTES FOLDER SCRIPT. A script under another sampler.

ddtrace: its memory collector alone, without an agent, exported once to a file at the end (as it is
once a minute, by default). pyroscope: its memory profiler alone; there is no server at the address
that it sends to, every ten seconds, by default. wrapped: none, to compare the others with.
"""

import os
import runpy
import sys

PEER, SAMPLE, FOLDER, SCRIPT = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
os.environ.update(
    DD_TRACE_ENABLED="0",
    DD_INSTRUMENTATION_TELEMETRY_ENABLED="0",
    DD_REMOTE_CONFIGURATION_ENABLED="0",
    DD_TRACE_STARTUP_LOGS="0",
)
sys.argv = [SCRIPT]
sys.path[0] = os.path.dirname(SCRIPT)  # noqa: PTH120
if PEER == "ddtrace":
    from ddtrace.internal.datadog.profiling import ddup
    from ddtrace.profiling.collector.memalloc import MemoryCollector

    ddup.config(service="bench", env="bench", version="0", output_filename=FOLDER + "/ddtrace")
    ddup.start()
    collector = MemoryCollector(heap_sample_size=SAMPLE)
    collector.start()
    try:
        runpy.run_path(SCRIPT, run_name="__main__")
    finally:
        collector.snapshot()
        ddup.upload()
        collector.stop()
elif PEER == "wrapped":
    runpy.run_path(SCRIPT, run_name="__main__")
else:
    import pyroscope

    started = pyroscope.configure(
        application_name="bench",
        server_address="http://127.0.0.1:9",
        cpu_enabled=False,
        mem_enabled=True,
        mem_heap_sample_size=SAMPLE,
    )
    if not started:
        sys.exit("pyroscope did not start")
    try:
        runpy.run_path(SCRIPT, run_name="__main__")
    finally:
        pyroscope.shutdown()
