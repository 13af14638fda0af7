from label_image.cli import command

command()
