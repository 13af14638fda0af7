from retrain.cli import command

command()
