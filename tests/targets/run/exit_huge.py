raise SystemExit(10**40)
