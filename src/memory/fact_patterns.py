"""How English sentences state facts: the patterns that facts.py looks for, each with an example that it matches.

They expect single spaces and ignore case, except for INTRODUCTION.
"""

import re

# --- from a message to its statements

# "I have a cat. |My dentist is Dr. Lee."
SENTENCE_END = re.compile(r"(?<!\bMr\.)(?<!\bMrs\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bSt\.)(?<=[.!?])\s+|\n+")
CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")

# "|Actually, |my cat is called Momo."
CORRECTION = re.compile(
    r"(?:actually|correction|i misspoke|my mistake|no|not any ?more|oops|sorry|wait)\b[ ,:;-]+", re.IGNORECASE
)
# "|By the way, |I have two sisters."
OPENING = re.compile(r"(?:and|also|but|by the way|btw|fyi|hi|hello|hey|oh|so|well|you know)\b[ ,:;-]+", re.IGNORECASE)
# "I'm Tereza|, nice to meet you|!"
CLOSING = re.compile(
    r",? ?\b(?:(?:nice|good|great|glad|pleased|happy) to meet you|by the way|btw|you know|thanks|thank you)(?=[.!]*$)",
    re.IGNORECASE,
)

_PLEASE = "(?:please |can you |could you )?"
# "|Please remember that |the rent is 940 euros."
REMEMBER_THAT = re.compile(
    rf"{_PLEASE}(?:remember|note|do not forget|don't forget|keep in mind|bear in mind)\b"
    r"(?: ?[,:] ?| )(?:that\b ?)?(?=\S)",
    re.IGNORECASE,
)
# "Remember to buy milk."
REMEMBER_TO = re.compile(rf"{_PLEASE}(?:remember|do not forget|don't forget) to \w+", re.IGNORECASE)
# "|Forget that |my phone number is 555 0100."
FORGET = re.compile(rf"{_PLEASE}forget\b(?: ?[,:])?(?: about| that)? (?=\S)", re.IGNORECASE)
# "Remember all that I said." only points at something.
POINTING_WORDS = {"it", "me", "that", "them", "this", "these", "those", "what", "i", "you", "said", "all", "for", "the"}

# "My name is Kim| and |I'm vegan."
BETWEEN_CLAUSES = re.compile(r",? (?:and|but|so) (?=(?:i|my|our|we)\b)", re.IGNORECASE)
# "I'm tired", "we ski"
CLAUSE_OF_I_OR_WE = re.compile(r"(?:i|we)(?:'\w+)? \w", re.IGNORECASE)
# "my wife is scared", "my brother works here", "my cat died"
VERB = re.compile(r"\b(?:are|has|have|is|was|were|died|left|moved)\b|(?:ed|[^\s\W]s) \w", re.IGNORECASE)

# "I work in Oslo now." may correct "I work in Bonn."
NOW = re.compile(r"\b(?:again|now|no longer|these days)\b", re.IGNORECASE)

# --- what is no fact

# A sentence with one of these tells nothing lasting about its writer. By example:
NO_FACT = {
    "I like your answer.": r"\b(?:you|your|yours|answers?|questions?|thanks?|let's)\b",
    "I think it is Paris.": r"\b(?:bet|doubt|guess|hope|know|mean|meant|suppose|think|thought|understand"
    r"|wonder(?:ing)?)\b",
    "He said that I live in Rome.": r"\b(?:asked|heard|said|say|whether|(?<=i )told)\b",
    "My wife would like a poem.": r"\b(?:if|joking|kidding|would|'d)\b",
    "I'm a dragon, imagine that.": r"\b(?:dream(?:ed|t)|imagine|pretend|wish)\b",
    "I am the captain of my soul, wrote Henley.": r", (?:wrote|writes|says) \w",
    "My computer is slow today.": r"\b(?:today|right now|at the moment)\b",
    "I like that.": r"^(?:i|we) \w+(?: \w+)? (?:it|that|this|these|those)[.!]*$",
}

# --- what is a fact

# What people talk about in a chat, and not facts about them: "My code doesn't compile.", "I have an idea."
_CHAT_TOPIC = (
    "(?:apology|apologies|bad|god|goodness|more|other"
    "|(?:another|app|array|class|clue|code|column|computer crash|dataset|dictionary|doubt|draft|equation|error|essay"
    "|fault|feeling|file|function|guess|idea|input|list|look|loop|matrix|method|minute|mistake|moment|opinion|output"
    "|paragraph|pleasure|poem|point|problem|program|query|regex|request|row|script|sentence|string|suggestion|table|task|test|text"
    "|turn|variable|vector|word)s?)"
)
# "I am writing a letter."
_NEW_TEXT = r"(?:an?|the|this) (?:email|letter|message|poem|report|speech|story|text)\b"
# "I am a bit tired."
_IDIOM = "(?:(?:an?|the) (?:bit|little|king|queen)|the (?:same|one|best))"
_PRONOUN = "(?:it|that|this|these|those|them|him|her|so|not|one|ones|both|none|all)"

_WHO = (
    r"(?:i|we|my \w+ and i)"
    "(?: (?:all|also|always|both|currently|just|mostly|never|no longer|now|often|only|really|still|usually))?"
)
_HAVE = "(?:i|we)(?: have|'ve)"
_QUANTITY = (
    r"(?:an?|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\d+|no|some|several|many|my|our|the)"
)
# What people do for long, or did once and tell. "I drive a Fiat."
_LASTING_VERB = (
    "(?:adopted|attend|bake|became|bought|broke|build|built|coach|collect|commute|cook|cycle|drank|drink|drive|eat|enjoy"
    "|fly|gave up|get up|graduated|grew|grow|hate|hike|keep|knit|left|like|live|lived|lost|love|married|met|moved|named"
    "|own|paint|play|practi[cs]e|prefer|quit|raise|rent|retired|ride|run|sail|sell|sing|skate|ski|sleep|smoke|speak"
    "|spend|stopped|studied|study|suffer|support|surf|swim|take|taught|teach|train|use|used to|volunteer|wake|walk|wear"
    "|weigh|work|worked)"
)
# "vegan", "34 years old"
_LASTING_STATE = (
    r"(?:allergic|colou?r-?blind|deaf|diabetic|divorced|engaged|\w+ intolerant|left-handed|married|pregnant|retired"
    r"|right-handed|single|vegan|vegetarian|widowed|\w+ (?:years old|metres tall|cm tall))\b"
)
# "a nurse", "from Kenya", "learning Welsh"
_ROLE = (
    "(?:an?|afraid|born|called|from|named|scared|the|living|learning|moving|saving|studying|teaching|training|working"
    rf"|writing) (?!{_NEW_TEXT})\w"
)

# How a sentence begins that states a fact about its writer. By example:
FACT = {
    "My cat is called Miso.": rf"(?:my|our) (?!{_CHAT_TOPIC}\b)[\w'-]+ \w",
    "I'm allergic to nuts.": rf"(?:i'm|we're|{_WHO} (?:am|are)) (?:not )?(?!{_IDIOM}\b)(?:{_LASTING_STATE}|{_ROLE})",
    "I was born in 1988.": rf"{_WHO} (?:was|were) (?!{_IDIOM}\b)"
    r"(?:born|diagnosed|raised|married|vegan|vegetarian|an? \w)",
    "I've been vegan since 2010.": rf"{_HAVE} been "
    r"(?:an?|in|learning|living|married|playing|single|together|vegan|vegetarian|working)\b",
    "I've lived here since 2009.": rf"{_HAVE} (?:lived|played|studied|taught|worked) \w",
    "I have two sisters.": rf"(?:{_WHO} (?:have|own|got)|{_HAVE} got) {_QUANTITY} (?!{_CHAT_TOPIC}\b)\w",
    "I work as a nurse.": rf"{_WHO} {_LASTING_VERB} (?!(?:{_PRONOUN}|(?:an?|my|the) {_CHAT_TOPIC})\b)[\w'-]",
    "I got divorced last year.": rf"{_WHO} got (?:divorced|engaged|married)\b",
    "I can play the banjo.": r"(?:i|we) can (?:cook|drive|knit|play|ride|sail|sing|ski|speak|swim)\b",
    "I can't eat shellfish.": r"i (?:can't|cannot|don't|do not|never) "
    r"(?:stand|drink|drive|eat|hear|like|smoke|swim|wear|own|speak|ride)\b",
    "I do yoga twice a week.": rf"{_WHO} do \w+ (?:every|on|once|twice)\b",
    "I turned forty last week.": rf"{_WHO} turned (?:\d+|\w+(?:teen|ty)(?:-\w+)?)\b",
    "I go swimming every Wednesday.": rf"{_WHO} go \w+ing\b",
    "I go to the gym on Mondays.": rf"{_WHO} go to (?:the|a|my|our) \w+ (?:every|on|in|at)\b",
}
# "I'm Kim." or "I'm Kim Novak and": the capitals distinguish a name from a state such as "tired".
INTRODUCTION = re.compile(r"(?i:i'm|i am)(?: [A-Z][\w-]+){1,3}(?=[.!,]|$| (?:and|but)\b)")
