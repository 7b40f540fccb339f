"""The command line: parse, call one core function, render. No rule of the trade lives here."""
