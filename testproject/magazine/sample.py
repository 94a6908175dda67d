# ruff: noqa: RUF001  (typographic quotes belong in prose)
"""The sample data of the magazine: its articles, its flags and its editor."""

from __future__ import annotations

from datetime import date
from typing import TypedDict

EDITOR = "editor"
"""The name of the admin's user, and also the password."""
FLAGS = ("evening-edition", "new-masthead", "tide-clock")


class Sample(TypedDict):
    """The fields of an article."""

    slug: str
    title: str
    topic: str
    author: str
    published: date
    standfirst: str
    body: str


ARTICLES: tuple[Sample, ...] = (
    {
        "slug": "learning-a-lighthouse-by-heart",
        "title": "Learning a Lighthouse by Heart",
        "topic": "light",
        "author": "Tobias Renn",
        "published": date(2025, 9, 21),
        "standfirst": "Every light on the coast has its own rhythm, and the rhythm is its name.",
        "body": """
From seaward, on a dark night, a lighthouse has no height and no colour of paint. It has a rhythm.
Three flashes and a long dark; one flash every five seconds; a slow light that is on for longer
than it is off. The chart writes it in shorthand, and the shorthand is how you know which of all
the bright points ahead of you is the one you hoped for.

My grandfather taught me to count them aloud. You begin at a flash, say the seconds at a walking
pace, and do not trust the first answer. Waves hide a light. So does wishing. ‘Count it three
times,’ he said, ‘and the third time, pretend you’d like it to be the other one.’

The words are worth having. A light that shows for less time than it is dark is flashing; one that
is dark for less time than it shows is occulting; equal halves are isophase. I know a retired pilot
who describes his relations by them. His brother, he says, is group occulting: mostly present, but
he goes out twice in a row.

Satellites do the finding now, and the keepers went home long ago. Still the lights turn, and still
somebody at a rail somewhere is counting under their breath, and arriving at a name.
""",
    },
    {
        "slug": "the-four-oclock-loaf",
        "title": "The Four O’Clock Loaf",
        "topic": "bread",
        "author": "Owen Parrish",
        "published": date(2025, 9, 7),
        "standfirst": "A village bakery has sold the same loaf at the same hour for sixty years.",
        "body": """
There are two queues at the bakery in Nether Ambry. The one in the morning is brisk and has
somewhere to be. The one at four in the afternoon is mostly coats, prams and conversation, and it
forms a little before the smell does.

The loaf it waits for is a plain one: wheat, a fifth part of rye, water, salt, and a leaven that
was already old when the present baker was apprenticed. It goes into the oven after the morning’s
bread is out and the bricks have begun to cool. A falling oven gives a thick crust and an open,
patient crumb, and nobody has found a way to hurry it.

‘People ask for the recipe,’ says the baker, ‘and I give it to them, because the recipe isn’t the
secret. The secret is that the oven needs five hours to lose its temper.’ He has tried a modern
oven that can be told to cool on a curve. The bread was good. The queue was polite about it.

By twenty past four the shelf is bare. The last loaf each day goes to the person who swept the
step, a post for which there is, I am told, a list.
""",
    },
    {
        "slug": "slack-water",
        "title": "Slack Water",
        "topic": "water",
        "author": "Hanne Vik",
        "published": date(2025, 8, 24),
        "standfirst": "Between the flood and the ebb there is a pause, and a harbour lives by it.",
        "body": """
The tide does not turn the way a page turns. It slows, and goes on slowing, until the weed on the
harbour wall hangs straight down and a leaf dropped from the bridge stays under the bridge. Nothing
is happening, and everyone on the quay has been waiting for it since breakfast.

Slack water is when the awkward jobs get done. Barges are warped round, the diver goes down to the
mooring chain, and the man with the wide, unhandy ketch brings her in without an audience. For ten
minutes, or twenty on a lazy tide, the sea stops arguing.

The almanac gives the time of high water to the minute, and newcomers plan by it. The old hands
look at the buoy instead. A buoy leans with the stream, and straightens when the stream has had
enough; in our harbour that is a good quarter of an hour after the book says so, and anybody’s
guess when there has been rain in the hills.

I asked the harbour master what she does with her own slack water. She thought about it while a
gull walked the length of the wall. ‘I put the kettle on,’ she said, ‘and I don’t answer the radio.’
Then the leaf under the bridge moved an inch to seaward, and she went back to work.
""",
    },
    {
        "slug": "the-blank-part-of-the-map",
        "title": "The Blank Part of the Map",
        "topic": "maps",
        "author": "Ines Marlow",
        "published": date(2025, 8, 10),
        "standfirst": "What a surveyor leaves out can be the most honest thing on the sheet.",
        "body": """
On the third sheet of the old county survey there is a space about the size of a thumbprint with
nothing in it. Around it the hachures crowd in, every spring and sheepfold has its name, and then,
between two becks, there is paper.

It was not a mistake. The surveyor’s notebook survives, and against that day he wrote: ‘Mist. Heard
water to the north, and a dog. Did not see the ground.’ He came back twice and had the same
weather. So he drew what he had seen, and stopped drawing where he had not.

His successors filled the gap by joining up the edges, as one would. It took eighty years for
anyone to walk there on a clear day and discover that the edges do not join: the beck that goes in
is not the beck that comes out. There is a hollow between, with a small tarn in it, which was a lake
on no map because everyone had assumed a stream.

I keep a copy of the third sheet over my desk. There is a great deal on it that is correct. The
thumbprint is the part I trust.
""",
    },
    {
        "slug": "the-river-that-changed-its-mind",
        "title": "The River That Changed Its Mind",
        "topic": "water",
        "author": "Ines Marlow",
        "published": date(2025, 7, 27),
        "standfirst": "A meander is a slow decision. Once in a lifetime you can watch one made.",
        "body": """
A river on a plain cannot leave a bend alone. The water on the outside has further to go and hurries
to keep up, and hurrying it bites the bank; on the inside it dawdles, and drops what it carries. So
the outside moves out, the inside fills in, and the bend becomes more of a bend every winter.

Below the church at Saltersgate the neck of the last great loop had worn so thin that you could
stand on it and hear the river on both sides. Children were told not to. The farmer had put up a
fence, moved it, and moved it again, and finally had stopped buying posts.

It went in February, in the night, without much noise. In the morning the river was running
straight through the gap as though it had always meant to, and the loop lay to one side, brimming
and quite still, with a swan on it. A mile of river had been excused.

By summer the ends had silted and there were yellow flags along the edge. The old people call it
the Leavings. On the new map it has no name yet, but it has a colour, which is a beginning.
""",
    },
    {
        "slug": "what-the-starter-knows",
        "title": "What the Starter Knows",
        "topic": "bread",
        "author": "Hanne Vik",
        "published": date(2025, 7, 13),
        "standfirst": "Flour, water and a jar: the least demanding animal in the house.",
        "body": """
It came in a jam jar with a note that said only ‘Feed me on Thursdays’. It was grey, it smelt of
cider and wet plaster, and I did not expect us to get on.

A starter is a small crowd that has learnt to live together. There are yeasts, which raise the
bread, and bacteria, which sour it and, by souring it, keep strangers out. Nobody chose them. They
came with the flour, and off the spoon, and out of the air of whoever’s kitchen this began in.

You learn to read it. A dome means it is still climbing; a flat top with a few craters, that it has
climbed and is thinking of coming down; a skim of dark water, that you were away at the weekend. It
does not hold a grudge. Pour off the water, stir in flour, and by evening it has forgiven you.

Mine has moved house twice and been divided more often than I can count. There are pieces of it in
four countries. When I am asked how old it is I say about nine years, which is how long I have had
it. What it would say itself, I have no idea; it was a going concern when I arrived.
""",
    },
    {
        "slug": "a-ferry-with-no-timetable",
        "title": "A Ferry with No Timetable",
        "topic": "water",
        "author": "Owen Parrish",
        "published": date(2025, 6, 29),
        "standfirst": "To cross at Rushy Lock you ring the bell, and then you have a little time.",
        "body": """
The bell hangs from an oak post on the western bank. A board underneath it reads RING ONCE, in
letters that have been repainted by several hands, and below that, smaller and by one hand only,
‘He heard you.’

The ferry is a flat boat on a rope, and the ferryman is whoever in the family is nearest. It takes
them as long to come down from the house as it takes a kettle to boil. In the meantime there is a
bench. On the bench, if you ring at the end of a working day, there will be two or three people who
rang before you and were in no hurry to be fetched.

I sat there with a vet, a boy with a cello, and a woman who crosses every evening to see whether the
other side is still, as she put it, over-rated. We spoke about eels. Nobody looked at a clock, since
there was nothing to compare it with.

There was once a plan for a footbridge, with drawings. The parish turned it down by a wide margin.
I asked the boy with the cello why. He was surprised at the question. ‘Where would we wait?’ he
said.
""",
    },
    {
        "slug": "keeping-the-light",
        "title": "Keeping the Light",
        "topic": "light",
        "author": "Hanne Vik",
        "published": date(2025, 6, 15),
        "standfirst": "The last keeper of Harrow Ness remembers mostly the polishing.",
        "body": """
‘People think of storms,’ says the last keeper of Harrow Ness. ‘I think of brass.’ There was the
rail on the stair, a hundred and forty steps of it. There were the oil cans that had held no oil
since the electricity came. There was the frame of the lens, and after the frame came the lens.

The lens was taller than she was: rings of prisms, stepped like a beehive, that bent the light of
one lamp into a level beam you could see from twenty miles out. It turned on a bath of mercury so
evenly that she could start its four tons moving with a finger. By day the curtains stayed drawn,
because a lens works in both directions, and the sun would have set fire to the lamp.

She kept a log. Wind, visibility, the barometer, ships. Most entries are two lines. One, from a
night in the great gale, says: ‘Windows holding. Light regular.’ She reads it out to me twice. It
is, she thinks, the best sentence she has written.

The light is looked after now by a box the size of a suitcase and a technician who visits in May.
He told her that it never fails. She does not doubt it. But she lives in sight of the tower still,
and on most nights, before bed, she counts it once.
""",
    },
    {
        "slug": "drawing-the-village-from-memory",
        "title": "Drawing the Village from Memory",
        "topic": "maps",
        "author": "Tobias Renn",
        "published": date(2025, 6, 1),
        "standfirst": "Forty people were given a sheet of paper and asked to draw the way home.",
        "body": """
The exercise was the schoolteacher’s idea. Everyone who came to the summer fair was given a sheet of
paper, a pencil, and one instruction: draw the village, without going to look at it. There were
forty maps by teatime, pinned along the wall of the hall, and no two were of the same place.

The postman had drawn every door and no trees. The children’s maps were mostly dogs, each in its
yard, with a skull beside one of them. A man who had lived here for eighty-one years drew the
bakery, the ford and the bench, joined by a single confident line, and signed it.

Distances went by importance. The hill by the quarry, which is slight, was enormous on the maps of
everyone who cycled. The new road, which is the largest thing in the parish, appeared on nine. The
elm by the green, which came down in a storm before half of them were born, was on twelve.

Somebody proposed combining them into one correct map, and there was a silence. The wall stayed as
it was all summer. People came in to find things. They found them, too, provided that they knew
whose map to ask.
""",
    },
    {
        "slug": "contour-lines-for-beginners",
        "title": "Contour Lines for Beginners",
        "topic": "maps",
        "author": "Owen Parrish",
        "published": date(2025, 5, 18),
        "standfirst": "How a handful of brown loops turns into a hill, and when to be suspicious.",
        "body": """
Imagine that the sea comes up ten metres and stops long enough to leave a line of weed. Then ten
metres more. When it goes down again, the hill is ringed with tidemarks, and if you look straight
down upon it from a balloon you are looking at a contour map.

Everything else follows. Where the lines crowd, your knees will know about it. Where they spread,
there is room to sit. A row of Vs pointing uphill is a stream; pointing downhill, a spur. A loop
inside a loop is a summit, unless it has little teeth on the inner side, in which case it is a
hole.

The thing to remember is what happens between two lines, which is that nobody has said. A hillside
can put a nine-metre cliff into a ten-metre interval and leave the map spotless. So read the lines
for the shape of the land, and the land for everything else.

A good exercise is to pick a walk, sit down with the map on the evening before, and tell somebody
out loud what you will see at each turn. Then go, and be wrong. Three weekends of that, and the
paper begins to stand up by itself.
""",
    },
)
