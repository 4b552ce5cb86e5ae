"""Own text and the installed command, in processes of their own, on a language that no recipe holds."""
