print("x")
x = "é"
