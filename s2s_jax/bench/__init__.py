"""How fast is it, against the machine's limit and against others?"""
