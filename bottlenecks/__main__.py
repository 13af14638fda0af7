from bottlenecks.cli import command

command()
