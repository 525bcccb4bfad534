# -*- coding: latin-1 -*-
print(ascii("éß"))
raise ValueError("é")
