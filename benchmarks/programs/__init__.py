"""Programs that run in processes of their own, in the interpreter of the product they measure."""
