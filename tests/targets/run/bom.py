print(ascii("é"), __doc__)
1 / 0
