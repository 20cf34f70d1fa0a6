"""Reads the recipes of a manual page in POD: headings, and the commands and files below them."""

import dataclasses
import re


@dataclasses.dataclass
class Block:
    """Indented text. `file` is the name in the paragraph above that ends with F<NAME>: and a colon."""
    text: str
    file: str | None


@dataclasses.dataclass
class Recipe:
    title: str
    prose: str = ""
    blocks: list[Block] = dataclasses.field(default_factory=list)


def recipes_of(path):
    """Returns the recipes of a page by title. A heading begins a recipe, of whatever level it is."""
    with open(path, encoding="utf-8") as file:
        paragraphs = re.split(r"\n(?:[ \t]*\n)+", file.read())
    found, recipe, follows = {}, Recipe(""), False
    for paragraph in paragraphs:
        heading = re.match(r"=head[12] +(.*)", paragraph)
        if heading:
            recipe = found[heading[1]] = Recipe(heading[1])
        elif paragraph.startswith(" "):
            text = re.sub(r"^ ", "", paragraph, flags=re.M).rstrip("\n") + "\n"
            if follows:
                recipe.blocks[-1].text += "\n" + text
            else:
                name = re.search(r"F<([^>]*)>:\s*$", recipe.prose)
                recipe.blocks.append(Block(text, name and name[1]))
            follows = True
            continue
        elif not paragraph.startswith("="):
            recipe.prose += paragraph + "\n"
        follows = False
    return found
