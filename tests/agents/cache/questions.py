"""Pairs of questions, labelled by hand: do they have the same answer?

Each topic is a question with blanks, ways to ask the same, and questions that look like it and are others: another
number, name, unit, tense, direction, negation, order, quantity, word. Blanks are filled three times, so pairs of a
topic are not independent; halves are split by topic, never within one.
"""

from __future__ import annotations

from typing import NamedTuple

Pair = tuple[str, str, bool]


class Topic(NamedTuple):
    """`question`, and what is or isn't the same, with {x} and {y}; `fills`: what stands for them."""

    question: str
    same: tuple[str, ...]
    other: tuple[str, ...]
    fills: tuple[tuple[str, str], ...]


TOPICS = (
    Topic(
        "What is the capital of {x}?",
        (
            "what's the capital of {x}",
            "Can you tell me the capital of {x}?",
            "Capital of {x}?",
            "{x}: what is the capital?",
            "What city is the capital of {x}?",
            "Please tell me what the capital of {x} is",
        ),
        (
            "What is the capital of {y}?",
            "What was the capital of {x} in 1900?",
            "What is the population of {x}?",
            "What is the largest city of {x}?",
            "What is the capital of {x} known for?",
            "What is not the capital of {x}?",
            "What is the currency of {x}?",
            "what is the capital of {y}",
            "Is {x} a capital?",
            "Who is the mayor of the capital of {x}?",
        ),
        (("Peru", "Chile"), ("Norway", "Sweden"), ("Austria", "Australia")),
    ),
    Topic(
        "How do I convert {x} miles to kilometers?",
        (
            "How can I convert {x} miles to kilometers?",
            "how to convert {x} miles to kilometers",
            "How do you convert {x} miles to kilometers, please?",
            "Convert {x} miles to kilometers",
            "{x} miles in kilometers?",
        ),
        (
            "How do I convert {y} miles to kilometers?",
            "How do I convert {x} kilometers to miles?",
            "How do I convert {x} nautical miles to kilometers?",
            "How do I convert {x} miles to meters?",
            "How do I convert {x} square miles to square kilometers?",
            "How do I convert -{x} miles to kilometers?",
            "Why do I convert {x} miles to kilometers?",
            "How do I convert {x}.5 miles to kilometers?",
            "How long is it to drive {x} miles in kilometers?",
        ),
        (("10", "100"), ("26", "62"), ("1,000", "10,000")),
    ),
    Topic(
        "Who won the World Cup in {x}?",
        (
            "who won the world cup in {x}",
            "Can you tell me who won the World Cup in {x}?",
            "In {x}, who won the World Cup?",
            "Who was the winner of the World Cup in {x}?",
            "World Cup {x} winner?",
        ),
        (
            "Who won the World Cup in {y}?",
            "Who lost the World Cup final in {x}?",
            "Who hosted the World Cup in {x}?",
            "Who won the World Cup before {x}?",
            "Who won the World Cup after {x}?",
            "Who won the Rugby World Cup in {x}?",
            "Who scored most in the World Cup in {x}?",
            "When was the World Cup in {x} won?",
            "Who didn't qualify for the World Cup in {x}?",
        ),
        (("1998", "1989"), ("2002", "2006"), ("2014", "2018")),
    ),
    Topic(
        "How do I fly from {x} to {y}?",
        (
            "How can I fly from {x} to {y}?",
            "how to fly from {x} to {y}",
            "Could you tell me how to fly from {x} to {y}?",
            "How would I get from {x} to {y} by plane?",
        ),
        (
            "How do I fly from {y} to {x}?",
            "How do I drive from {x} to {y}?",
            "How long do I fly from {x} to {y}?",
            "How do I fly from {x} to {y} without a passport?",
            "How do I fly from {x} to {y} with a dog?",
            "How far is it from {x} to {y}?",
            "Why fly from {x} to {y}?",
            "How do I fly from {x} to {y} and back?",
            "how do i fly from {y} to {x}",
        ),
        (("Rome", "Lima"), ("Oslo", "Cairo"), ("Paris", "Tokyo")),
    ),
    Topic(
        "Is it safe to take {x} with alcohol?",
        (
            "is it safe to take {x} with alcohol",
            "Is taking {x} with alcohol safe?",
            "Can you tell me if it is safe to take {x} with alcohol?",
            "Please, is it safe to take {x} with alcohol?",
        ),
        (
            "Is it safe to take {y} with alcohol?",
            "Is it safe to take {x} without alcohol?",
            "Is it unsafe to take {x} with alcohol?",
            "Is it safe to take {x} after alcohol?",
            "Is it safe to take {x} with coffee?",
            "Is it legal to take {x} with alcohol?",
            "Is it not safe to take {x} with alcohol?",
            "Is it safe for children to take {x} with alcohol?",
            "How much {x} is safe with alcohol?",
        ),
        (("ibuprofen", "paracetamol"), ("aspirin", "insulin"), ("hydroxyzine", "hydralazine")),
    ),
    Topic(
        "How do I increase the {x} of my server?",
        (
            "How can I increase the {x} of my server?",
            "how to increase the {x} of my server",
            "Please tell me how to increase the {x} of my server",
            "How do I increase my server's {x}?",
        ),
        (
            "How do I decrease the {x} of my server?",
            "How do I increase the {y} of my server?",
            "How do I measure the {x} of my server?",
            "Why does the {x} of my server increase?",
            "How do I increase the {x} of my client?",
            "How do I stop the {x} of my server from increasing?",
            "When do I increase the {x} of my server?",
            "How much can I increase the {x} of my server?",
            "How do I increase the {x} of all my servers?",
        ),
        (("timeout", "throughput"), ("memory", "latency"), ("bandwidth", "storage")),
    ),
    Topic(
        "What does the Python function {x} do?",
        (
            "what does the Python function {x} do",
            "What does Python's function {x} do?",
            "Can you tell me what the Python function {x} does?",
            "What is the Python function {x} for?",
        ),
        (
            "What does the Python function {y} do?",
            "What does the Ruby function {x} do?",
            "What does the Python method {x} do?",
            "What doesn't the Python function {x} do?",
            "What does the Python function {x} return?",
            "What does the Python function {x} cost?",
            "When was the Python function {x} added?",
            "Why does the Python function {x} fail?",
            "What does the Python function {x} do in Python 2?",
        ),
        (("zip", "map"), ("any", "all"), ("min", "max")),
    ),
    Topic(
        "When did {x} die?",
        (
            "when did {x} die",
            "Can you tell me when {x} died?",
            "Do you know when {x} died?",
            "When did {x} die, please?",
        ),
        (
            "When did {y} die?",
            "Where did {x} die?",
            "How did {x} die?",
            "When was {x} born?",
            "When did {x} marry?",
            "When did {x} not die?",
            "When will {x} die?",
            "Who did {x} kill when he died?",
            "When did the wife of {x} die?",
        ),
        (("Charles Darwin", "Charles Dickens"), ("Henry IV", "Henry V"), ("George Bush", "George Busch")),
    ),
    Topic(
        "How many {x} are in a {y}?",
        (
            "how many {x} are in a {y}",
            "How many {x} are there in a {y}?",
            "Can you tell me how many {x} are in a {y}?",
            "How many {x} in one {y}?",
        ),
        (
            "How many {y}s are in a {x}?",
            "How many {x} are in two {y}s?",
            "How many {x} are not in a {y}?",
            "How much is a {y} of {x}?",
            "How many {x} are in half a {y}?",
            "How many {x} are on a {y}?",
            "How many {x} are in every other {y}?",
            "How many {x} were in a {y}?",
            "How many more {x} are in a {y} than in a cup?",
        ),
        (("ounces", "pound"), ("teaspoons", "tablespoon"), ("days", "leap year")),
    ),
    Topic(
        "What is {x} percent of {y}?",
        (
            "what's {x} percent of {y}",
            "How much is {x} percent of {y}?",
            "Can you tell me what {x} percent of {y} is?",
            "{x} percent of {y}?",
        ),
        (
            "What is {y} percent of {x}?",
            "What is {x} percent more than {y}?",
            "What is {x} percent off {y}?",
            "What is {x} of {y}?",
            "What is {x} permille of {y}?",
            "What is {x} percent of {y}0?",
            "What is {x} percent of -{y}?",
            "What is {x} percent of what {y} is?",
            "{y} is {x} percent of what?",
        ),
        (("15", "80"), ("3", "45"), ("20", "250")),
    ),
    Topic(
        "Which river flows through {x}?",
        (
            "which river flows through {x}",
            "What river flows through {x}?",
            "Can you tell me which river flows through {x}?",
            "Which is the river that flows through {x}?",
        ),
        (
            "Which river flows through {y}?",
            "Which rivers flow through {x}?",
            "Which river does not flow through {x}?",
            "Which river flows near {x}?",
            "Which road goes through {x}?",
            "Where does the river of {x} flow?",
            "Which river flows to {x}?",
            "Which is the longest river that flows through {x}?",
            "which river flows through {y}",
        ),
        (("Vienna", "Prague"), ("Baghdad", "Cairo"), ("Georgetown", "George Town")),
    ),
    Topic(
        "What is the best way to cook {x}?",
        (
            "what's the best way to cook {x}",
            "Tell me the best way to cook {x}",
            "What is the best way of cooking {x}?",
            "Please, what is the best way to cook {x}?",
            "How is {x} best cooked?",
        ),
        (
            "What is the best way to cook {y}?",
            "What is the worst way to cook {x}?",
            "What is the best way to store {x}?",
            "What is the fastest way to cook {x}?",
            "What is the best way to cook {x} without oil?",
            "What is the best way to cook {x} for 20 people?",
            "What is the best way not to overcook {x}?",
            "Where is the best place to eat cooked {x}?",
            "What is the best wine with cooked {x}?",
        ),
        (("rice", "lice"), ("beef", "beet"), ("brown rice", "wild rice")),
    ),
    Topic(
        "How do I {x} two-factor authentication?",
        (
            "How can I {x} two-factor authentication?",
            "how to {x} two-factor authentication",
            "Hi, how do I {x} two-factor authentication? Thanks",
            "Could you tell me how to {x} two-factor authentication?",
        ),
        (
            "How do I {y} two-factor authentication?",
            "How do I {x} three-factor authentication?",
            "Why should I {x} two-factor authentication?",
            "How do I {x} two-factor authentication for all users?",
            "How do I {x} two-factor authentication without a phone?",
            "How do I not {x} two-factor authentication?",
            "Who can {x} two-factor authentication?",
            "How do I {x} and then {y} two-factor authentication?",
            "When did you {x} two-factor authentication?",
        ),
        (("enable", "disable"), ("activate", "deactivate"), ("install", "uninstall")),
    ),
    Topic(
        "Qual é a capital de {x}?",
        (
            "qual a capital de {x}",
            "Por favor, qual é a capital de {x}?",
            "Você pode me dizer qual é a capital de {x}?",
            "Capital de {x}?",
            "Gostaria de saber qual é a capital de {x}",
        ),
        (
            "Qual é a capital de {y}?",
            "Qual era a capital de {x}?",
            "Qual é a população de {x}?",
            "Qual não é a capital de {x}?",
            "Qual é a moeda de {x}?",
            "Qual é a maior cidade de {x}?",
            "Onde fica a capital de {x}?",
            "Quem é o prefeito da capital de {x}?",
            "qual é a capital de {y}",
        ),
        (("Angola", "Moçambique"), ("Portugal", "Cabo Verde"), ("Guiné", "Guiana")),
    ),
    Topic(
        "Como posso {x} minha conta?",
        (
            "como faço para {x} minha conta",
            "Como {x} minha conta?",
            "Por favor, como posso {x} minha conta?",
            "Olá, como posso {x} minha conta? Obrigado",
        ),
        (
            "Como posso {y} minha conta?",
            "Por que posso {x} minha conta?",
            "Quando posso {x} minha conta?",
            "Como posso {x} a conta de outra pessoa?",
            "Como posso não {x} minha conta?",
            "Como posso {x} minha conta sem senha?",
            "Como posso {x} minhas 3 contas?",
            "Quem pode {x} minha conta?",
            "Como posso {x} meu cartão?",
        ),
        (("abrir", "fechar"), ("bloquear", "desbloquear"), ("ativar", "desativar")),
    ),
    Topic(
        "Does {x} cause {y}?",
        (
            "does {x} cause {y}",
            "Can you tell me if {x} causes {y}?",
            "Please, does {x} cause {y}?",
            "Is {x} a cause of {y}?",
        ),
        (
            "Does {y} cause {x}?",
            "Does {x} cure {y}?",
            "Does {x} prevent {y}?",
            "Doesn't {x} cause {y}?",
            "How does {x} cause {y}?",
            "Does {x} cause less {y}?",
            "Did {x} cause {y}?",
            "Does {x} never cause {y}?",
            "Does {x} cause {y} in cats?",
        ),
        (("stress", "insomnia"), ("poverty", "crime"), ("debt", "inflation")),
    ),
    Topic(
        "What time is {x} in {y} now?",
        (
            "what time is {x} in {y} now",
            "Can you tell me what time {x} in {y} is now?",
            "What time is it now for {x} in {y}?",
            "Now, what time is {x} in {y}?",
        ),
        (
            "What time is {y} in {x} now?",
            "What time was {x} in {y}?",
            "What time will {x} be in {y}?",
            "What day is {x} in {y} now?",
            "What time is {x} in Lagos now?",
            "What time is half past {x} in {y} now?",
            "What time isn't {x} in {y} now?",
            "What time is {x} in {y} in summer?",
            "What time is after {x} in {y} now?",
        ),
        (("9 am", "Boston"), ("noon", "Delhi"), ("3 pm", "Quito")),
    ),
    Topic(
        "How tall is {x}?",
        (
            "how tall is {x}",
            "Can you tell me how tall {x} is?",
            "I would like to know how tall {x} is",
            "How tall is {x}, please?",
        ),
        (
            "How tall is {y}?",
            "How old is {x}?",
            "How tall was {x}?",
            "How heavy is {x}?",
            "How tall is {x} in feet?",
            "How tall is the shadow of {x}?",
            "Is {x} tall?",
            "How tall isn't {x}?",
            "How tall is {x} without the antenna?",
        ),
        (("Mont Blanc", "Mont Ventoux"), ("the Eiffel Tower", "the Tokyo Tower"), ("K2", "K3")),
    ),
    Topic(
        "Can I return {x} after {y} days?",
        (
            "can i return {x} after {y} days",
            "Please tell me, can I return {x} after {y} days?",
            "After {y} days, can I return {x}?",
            "Hello, can I return {x} after {y} days?",
        ),
        (
            "Can I return {x} before {y} days?",
            "Can I return {x} after {y} weeks?",
            "Can't I return {x} after {y} days?",
            "Can I return {x} within {y} days?",
            "Can I exchange {x} after {y} days?",
            "Can I return {x} after {y}0 days?",
            "Can I return used {x} after {y} days?",
            "Can you return {x} after {y} days to me?",
            "When can I return {x} after {y} days?",
        ),
        (("shoes", "30"), ("books", "14"), ("food", "2")),
    ),
    Topic(
        "Did {x} beat {y}?",
        (
            "did {x} beat {y}",
            "Can you tell me if {x} beat {y}?",
            "Do you know if {x} did beat {y}?",
            "Please, did {x} beat {y}?",
        ),
        (
            "Did {y} beat {x}?",
            "Didn't {x} beat {y}?",
            "Will {x} beat {y}?",
            "When did {x} beat {y}?",
            "How did {x} beat {y}?",
            "Did {x} ever beat {y}?",
            "Did {x} lose to {y}?",
            "Did {x} beat {y} twice?",
            "did {y} beat {x}",
        ),
        (("Arsenal", "Chelsea"), ("Nadal", "Federer"), ("Brazil", "Germany")),
    ),
    Topic(
        "Did the {x} bite the {y}?",
        (
            "did the {x} bite the {y}",
            "Can you tell me, did the {x} bite the {y}?",
            "Please, did the {x} bite the {y}?",
            "Hi, did the {x} bite the {y}?",
        ),
        (
            "Did the {y} bite the {x}?",
            "Did a {y} bite the {x}?",
            "Was the {x} bitten by the {y}?",
            "Didn't the {x} bite the {y}?",
            "Why did the {x} bite the {y}?",
            "Did the {x} bark at the {y}?",
            "Where did the {x} bite the {y}?",
            "Did the {x} bite all the {y}s?",
            "did the {y} bite the {x}",
        ),
        (("dog", "man"), ("cat", "mouse"), ("horse", "farmer")),
    ),
    Topic(
        "What is the boiling point of {x} in celsius?",
        (
            "what's the boiling point of {x} in celsius",
            "In celsius, what is the boiling point of {x}?",
            "Tell me the boiling point of {x} in celsius",
            "Could you tell me what the boiling point of {x} in celsius is?",
        ),
        (
            "What is the boiling point of {y} in celsius?",
            "What is the freezing point of {x} in celsius?",
            "What is the boiling point of {x} in fahrenheit?",
            "What is the boiling point of {x} in celsius at 3000 meters?",
            "What is the boiling point of salted {x} in celsius?",
            "What is the flash point of {x} in celsius?",
            "What isn't the boiling point of {x} in celsius?",
            "What is above the boiling point of {x} in celsius?",
            "Why is the boiling point of {x} in celsius low?",
        ),
        (("water", "heavy water"), ("ethanol", "methanol"), ("helium", "hydrogen")),
    ),
    Topic(
        "How much does {x} cost in {y}?",
        (
            "how much does {x} cost in {y}",
            "Can you tell me how much {x} costs in {y}?",
            "In {y}, how much does {x} cost?",
            "Please tell me how much does {x} cost in {y}",
        ),
        (
            "How much did {x} cost in {y}?",
            "How much will {x} cost in {y}?",
            "How much does {x} cost outside of {y}?",
            "How much more does {x} cost in {y}?",
            "How much does {x} weigh in {y}?",
            "How much does {x} cost in dollars in {y}?",
            "Who sells {x} in {y}?",
            "How much does {x} cost in Chad?",
            "How little does {x} cost in {y}?",
        ),
        (("petrol", "Spain"), ("a room", "Berlin"), ("milk", "Japan")),
    ),
    Topic(
        "Summarize chapter {x} of {y}",
        (
            "summarize chapter {x} of {y}",
            "Can you summarize chapter {x} of {y}?",
            "Please summarize chapter {x} of {y}.",
            "Could you please summarize chapter {x} of {y}, thanks",
        ),
        (
            "Summarize chapter {x}0 of {y}",
            "Summarize chapters {x} to 9 of {y}",
            "Summarize all but chapter {x} of {y}",
            "Translate chapter {x} of {y}",
            "Summarize chapter {x} of Ulysses",
            "Summarize page {x} of {y}",
            "Summarize chapter {x} of {y} in 3 words",
            "Do not summarize chapter {x} of {y}",
            "Summarize chapter {x} of the sequel of {y}",
        ),
        (("1", "Emma"), ("4", "Moby-Dick"), ("7", "Dracula")),
    ),
)

UNSEEN = (
    Topic(
        "Which team does {x} play for?",
        (
            "which team does {x} play for",
            "What team does {x} play for?",
            "Please tell me which team {x} plays for",
            "Could you tell me which team does {x} play for?",
        ),
        (
            "Which team does {y} play for?",
            "Which team did {x} play for?",
            "Which team does {x} play against?",
            "Which team does not play {x}?",
            "Which team does {x} coach?",
            "Which teams does {x} play for?",
            "Who does {x} play for a team with?",
            "Which team does {x} play for in 2030?",
        ),
        (("Messi", "Mbappé"), ("LeBron James", "James Harden"), ("Marta", "Maria")),
    ),
    Topic(
        "What should I do if my {x} is {y}?",
        (
            "what should i do if my {x} is {y}",
            "Hi, what should I do if my {x} is {y}?",
            "What should I do when my {x} is {y}?",
            "My {x} is {y}, what should I do?",
        ),
        (
            "What should I do if my {x} is not {y}?",
            "What should I do if your {x} is {y}?",
            "What should I do until my {x} is {y}?",
            "What should I do if my other {x} is {y}?",
            "What shouldn't I do if my {x} is {y}?",
            "What should I pay if my {x} is {y}?",
            "Why is my {x} {y}?",
            "What should I do if my {x} was {y}?",
        ),
        (("phone", "wet"), ("account", "locked"), ("passport", "expired")),
    ),
    Topic(
        "Is {x} bigger than {y}?",
        (
            "is {x} bigger than {y}",
            "Please, is {x} bigger than {y}?",
            "Can you tell me, is {x} bigger than {y}?",
            "Hello, is {x} bigger than {y}? Thanks",
        ),
        (
            "Is {y} bigger than {x}?",
            "Is {x} smaller than {y}?",
            "Isn't {x} bigger than {y}?",
            "Is {x} as big as {y}?",
            "Why is {x} bigger than {y}?",
            "Was {x} bigger than {y}?",
            "Is {x} twice bigger than {y}?",
            "is {y} bigger than {x}",
        ),
        (("Mars", "Venus"), ("Texas", "France"), ("a lion", "a tiger")),
    ),
    Topic(
        "Translate '{x}' into {y}",
        (
            "translate '{x}' into {y}",
            "Please translate '{x}' into {y}",
            "Can you translate '{x}' into {y}?",
            "Could you please translate '{x}' into {y}?",
        ),
        (
            "Translate '{x}' from {y}",
            "Translate '{x} not' into {y}",
            "Translate '{x}' into Latin",
            "Explain '{x}' in {y}",
            "Translate 'the {x}s' into {y}",
            "Don't translate '{x}' into {y}",
            "Translate '{x}' into formal {y}",
            "Translate '{x}' into {y} and Greek",
        ),
        (("good night", "German"), ("cheese", "Italian"), ("I am", "French")),
    ),
    Topic(
        "What is the square root of {x}?",
        (
            "what's the square root of {x}",
            "Square root of {x}?",
            "Tell me the square root of {x}",
            "Can you tell me what the square root of {x} is?",
        ),
        (
            "What is the square root of {y}?",
            "What is the square of {x}?",
            "What is the cube root of {x}?",
            "What is the square root of -{x}?",
            "What is the square root of {x}.5?",
            "What is the square root of {x}^2?",
            "What is not the square root of {x}?",
            "What is the root of square {x}?",
        ),
        (("16", "61"), ("2", "20"), ("1,024", "10.24")),
    ),
    Topic(
        "How long does it take to {x} a {y}?",
        (
            "how long does it take to {x} a {y}",
            "How long does it take to {x} the {y}?",
            "Please, how long does it take to {x} a {y}?",
            "I would like to know how long it takes to {x} a {y}",
        ),
        (
            "How long did it take to {x} a {y}?",
            "How much does it take to {x} a {y}?",
            "How long does it take not to {x} a {y}?",
            "How long does it take to {x} two {y}s?",
            "How long does it take a {y} to {x}?",
            "How long does it take to {x} without a {y}?",
            "How long will it take to {x} a {y}?",
            "How long does it take to un{x} a {y}?",
        ),
        (("freeze", "fish"), ("charge", "car"), ("pack", "suitcase")),
    ),
    Topic(
        "Quanto custa {x} em {y}?",
        (
            "quanto custa {x} em {y}",
            "Por favor, quanto custa {x} em {y}?",
            "Você pode me dizer quanto custa {x} em {y}?",
            "Quero saber quanto custa {x} em {y}",
        ),
        (
            "Quanto custava {x} em {y}?",
            "Quanto pesa {x} em {y}?",
            "Quanto custa {x} fora de {y}?",
            "Quanto não custa {x} em {y}?",
            "Quem vende {x} em {y}?",
            "Quanto custa {x} em Roma?",
            "Quanto custam 2 de {x} em {y}?",
            "Quanto mais custa {x} em {y}?",
        ),
        (("gasolina", "Lisboa"), ("um café", "Paris"), ("leite", "Luanda")),
    ),
)
"""Written after the rails were finished, and never used to change them."""


def pairs(half: int) -> list[Pair]:
    """The pairs of every second topic."""
    return _pairs(TOPICS[half::2])


def unseen() -> list[Pair]:
    """The pairs that neither rails nor thresholds have seen."""
    return _pairs(UNSEEN)


def _pairs(topics: tuple[Topic, ...]) -> list[Pair]:
    made: list[Pair] = []
    for topic in topics:
        for x, y in topic.fills:
            question = topic.question.format(x=x, y=y)
            for same, variants in ((True, topic.same), (False, topic.other)):
                made += [(question, variant.format(x=x, y=y), same) for variant in variants]
    return made
