import signal

print([signal.getsignal(n) for n in (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGXFSZ)])
print(signal.pthread_sigmask(signal.SIG_BLOCK, []))
