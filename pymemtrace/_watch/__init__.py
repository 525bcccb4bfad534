"""Watching processes that are recorded: metrics and alerts. All of it runs beside them.

    units.py      "5m", "512MiB", "10MiB/min", "85%"
    lines.py      where in a TOML text a key is
    rules.py      a rule file, checked
    trend.py      the slope of a noisy series, and how sure it is
    host.py       what /proc and /sys say of a process, its cgroup and the host
    figures.py    the figures of one process at one moment
    follow.py     the captures that are watched: they grow, come, end, are replaced
    alerts.py     rules against figures: what fires, what is cleared
    actions.py    telling people: log, webhook, command
    loop.py       all together, again and again

Only pymemtrace/metrics.py knows prometheus_client.
"""
