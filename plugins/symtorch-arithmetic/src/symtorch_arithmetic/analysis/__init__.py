"""Analysis: is an equation the true law, and which variables decide whether an answer is wrong?"""
