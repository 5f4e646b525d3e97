"""Names for runs that nobody named: two friendly words for a flow run, a few letters for a task run."""

from __future__ import annotations

from typing import Final, Protocol

__all__ = ["ADJECTIVES", "ANIMALS", "Chooser", "slug", "suffix"]


class Chooser(Protocol):
    """A source of randomness, such as a `random.Random`."""

    def randrange(self, stop: int, /) -> int:
        """An integer from 0 to `stop - 1`, each equally likely."""
        ...


_LETTERS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


def slug(source: Chooser) -> str:
    """Two words with a dash, e.g. `brisk-otter`."""
    return f"{ADJECTIVES[source.randrange(len(ADJECTIVES))]}-{ANIMALS[source.randrange(len(ANIMALS))]}"


def suffix(source: Chooser, length: int = 3) -> str:
    """A few letters and digits, e.g. `4k2`, to tell the runs of one task apart."""
    return "".join(_LETTERS[source.randrange(len(_LETTERS))] for _ in range(length))


_ADJECTIVES_BY_LETTER: Final = """
able adept agile airy alert amber ample apt arctic ardent astute aural autumn avid azure
balmy beaming blithe bold bonny brave breezy bright brisk bronze buoyant busy
calm candid canny caring cedar cheery chipper civil clear clever cobalt cool copper coral cosy crisp
curious
dapper daring dauntless deft devoted dewy dulcet dusky
eager early earnest easy ebony elated elegant emerald exact
fabled fair fearless fern festive fine fleet fluent fond frank free fresh frosty
game gentle giddy gifted glad gleaming golden graceful grand grateful green gritty
hale handy happy hardy hazel hearty honest hopeful humble
indigo ivory
jade jaunty jolly jovial joyful
keen kind kindly
lavender level limber lively loyal lucid lucky lunar
maple marine mellow merry mighty mild minty modest mossy
neat nimble noble northern novel
ochre olive opal open orchid
patient peaceful pearly perky plucky poised polished polite prime proud prudent punctual
quaint quick quiet quirky
radiant ready regal restful robust rosy ruby russet rustic
sage sandy sapphire savvy scarlet secure serene sharp shiny silent silky silver sincere sleek smart
smooth
snowy snug solar solid sonic sound spry stable starry steady stellar sterling stout strong sturdy subtle
sunny supple sure swift
tactful tawny teal tender thrifty tidal tidy topaz tranquil trim true trusty
upbeat urbane
valiant velvet verdant vivid
warm wary wily winsome wise witty
zealous zesty zippy
"""
ADJECTIVES: Final = tuple(_ADJECTIVES_BY_LETTER.split())

_ANIMALS_BY_LETTER: Final = """
aardvark albatross alpaca antelope armadillo auk avocet
badger barbet bat beaver bee beetle bison bittern bobcat bongo boar bulbul bunting buzzard
camel caracal caribou cassowary cat cheetah chickadee chinchilla chough cicada civet coati cod condor
coot
cormorant cougar coyote crab crane cricket crow cuckoo curlew
deer dingo dipper dodo dolphin donkey dormouse dove dragonfly duck dugong dunlin
eagle echidna egret eider eland elk emu ermine
falcon fennec ferret finch firefly fish flamingo flycatcher fox frog
gannet gazelle gecko gerbil gibbon giraffe gnu goat godwit goldfinch goose gopher goshawk grebe grouse
guanaco guillemot gull guppy
hamster hare harrier hawk hedgehog heron hoopoe hornbill horse hummingbird
ibex ibis iguana impala
jackal jackdaw jaguar jay jerboa
kangaroo kestrel kingfisher kinkajou kite kiwi koala kookaburra kudu
lapwing lark lemming lemur leopard limpet linnet lion lizard llama lobster loon lynx
macaw magpie mallard manatee mantis marmot marten meerkat merlin mink mole mongoose moorhen moose moth
mouse
mule muskox
narwhal newt nightingale nuthatch
ocelot octopus okapi opossum oriole oryx osprey ostrich otter owl ox
panda pangolin panther parrot partridge peacock pelican penguin petrel pheasant pika pipit platypus
plover
pony porcupine porpoise possum ptarmigan puffin puma
quail quetzal quokka
rabbit raccoon raven razorbill redstart reindeer rhino robin rook
salmon sandpiper seahorse seal serval shearwater sheep shrew shrike skua skylark sloth snail snipe
sparrow
squid squirrel starling stilt stingray stoat stork sunbird swallow swan swift
takin tapir tarsier tern thrush tiger toad tortoise toucan trout turaco turnstone turtle
urchin
vicuna viper vole
wagtail walrus warbler waxwing weasel whale whimbrel wigeon wolf wombat woodcock woodpecker wren
yak yellowhammer
zebra zebu
"""
ANIMALS: Final = tuple(_ANIMALS_BY_LETTER.split())
