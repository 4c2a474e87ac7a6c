"""Does a question ask for something of this very hour? Patterns by what is asked for, English and Portuguese.

They look at words in lower case without accents, one blank apart (`words_of`). What they miss is kept for a day, what
they take by mistake for five minutes: so they lean towards taking too much.
"""

from __future__ import annotations

import re

_PLACES = r"(seats?|tickets?|rooms?|tables?|spots?|places?|slots?|beds?|units?|copies|appointments?)"
_LUGARES = r"(vagas?|lugares|lugar|ingressos?|bilhetes?|quartos?|mesas?|horarios?|unidades?|passagens|passagem)"
_SENT = (
    r"(order|parcel|package|shipment|delivery|ticket|invoice|refund|claim|case|booking|reservation|flight|train|bus"
    r"|pedido|encomenda|pacote|entrega|chamado|fatura|reserva|voo|trem|onibus)"
)
_STATES = (
    r"(up|down|online|offline|open(?! source)|closed(?! under)|running|working|busy|available|delayed|cancell?ed|late"
    r"|on (time|schedule|track)|sold out|here|back|still|through"
    r"|blocked|announced|healthy|slow|full|ready|done|deployed|queued|listed)"
)
_ESTADOS = (
    r"(abert[oa]s?|fechad[oa]s?|fora do ar|no ar|online|offline|funcionando|disponive(l|is)|atrasad[oa]s?|lotad[oa]s?"
    r"|cancelad[oa]s?|congestionad[oa]s?|chegando|lent[oa]s?|parad[oa]s?|cheio|cheia|pront[oa]s?|no (horario|prazo))"
)
_SUMS = r"( \d| the (total|sum|difference|product)| a dozen)"

TOPICS = {
    "of now": (
        r"today|todays|tonight|now|currently|current|latest|newest|live|breaking|yesterday|tomorrow|news|headlines"
        r"|this (week|weekend|month|year|season|quarter|morning|afternoon|evening|hour)|last night|next (week|month)"
        r"|at the moment|real.?time|(most )?recent|recently|trending|up to date|so far"
        r"|already|yet|still|(mon|tues|wednes|thurs|fri|satur|sun)day"
        r"|hoje|agora|atual|atuais|atualmente|ontem|amanha|noticias?|manchetes?|neste momento|em tempo real"
        r"|est[ea] (semana|mes|ano|fim de semana)|mais (nov|recent)\w+|ate agora|recentes|ja|ainda"
        r"|(segunda|terca|quarta|quinta|sexta) feira|sabado|domingo"
    ),
    "time and date": (
        r"what time|what (day|date|month|year) is (it|this)|(the|local) (time|date)( in\b| here| there| please|$)"
        r"|(days|weeks|months|hours|minutes|long|time) (until|till|to go)"
        r"|what (week|quarter) |the clock|as horas|que horas?|que dia (e|sao)\b"
        r"|(a|e a) (data|hora)( em\b| de hoje|$)|falta(m)?( quant\w+| \w+)? para"
        r"|quant[oa]s? \w+ falta(m)?"
    ),
    "prices and rates": (
        rf"how much for|how much (is|are|s)\b(?!{_SUMS})|how much (does|do|would|will) (\w+ ){{1,6}}(go for|sell for)"
        r"|(does|do|would|will) (\w+ ){1,6}cost"
        r"|(whats|what is|what are|hows) (the )?(\w+ ){0,3}(price|rate|quote|fare|yield|value of)s?\b(?! elast)"
        r"|(stock|share|bitcoin|oil|gold|gas|ticket) (price|value)s?"
        r"|(price|fare|quote)s? (today|for|of (a|an|the|one|gold|oil|gas|\w*coin))|trading at"
        r"|market cap|(the|at) (nasdaq|dow|ftse|dax|nikkei)|(ibovespa|a bolsa|bitcoin|btc)"
        r"|(exchange|interest|mortgage|inflation|savings) rates?|going for"
        r"|(dollar|euro|pound|yen|usd|eur|gbp|brl|btc)s? (to|in|vs) \w+"
        r"|(euro|dolar|libra|real)s? em|quanto (custa|custam|esta|estao|ta|vale|valem|sai)|cotacao|cambio"
        r"|(qual|quais) (e |sao )?[oa]s? (preco|precos|valor|taxa)|preco d[aeo] (acao|dolar|euro|gasolina|ouro)"
    ),
    "what is mine": (
        r"(account|card|bank|available|remaining|outstanding) balance|balance (of|on|in) (my|the|this)|saldo|extrato"
        r"|(whats?|wheres?|whens?|how (much|many|long)|is|are|has|have|did|was|show|check|track|list)"
        r"( (?!do\b|if\b|i\b|can\b|to\b)\w+){0,3} my\b"
        r"|(?<!how )(?<!what )(do|did|have|am|was) i(?! (have|need) to\b)|i (owe|order|bought)|unread"
        r"|(qual|quais|onde|quando|cade|quant[oa]s?)( (?!posso|faco|devo)\w+){0,3} (meu|minha|meus|minhas)\b"
        r"|(meu|minha) (\w+ ){1,2}(ja|esta|foi|chegou|saiu|vence)|quanto tenho|(eu|eu ja) (devo|tenho|comprei|pedi)"
    ),
    "orders": (
        rf"{_SENT}( no| number| nr| id| code| numero)? (#?[a-z]{{0,2}}|[a-z]{{2}} )\d+"
        rf"|(wheres?|where is) (the|our|this) {_SENT}"
        r"|(been|already|get|gets) (delivered|shipped|refunded|paid|approved)"
        r"|(will|does|did) (\w+ ){1,3}(arrive|ship)"
        rf"|(onde|cade|chegou|quando chega)( esta| \w)? {_SENT}|ja (chegou|saiu|foi (enviad|entreg|pag)\w+)"
    ),
    "what is left": (
        rf"(any|how many|more) (\w+ ){{0,2}}{_PLACES}|{_PLACES} (\w+ ){{0,2}}(left|free|available|remaining)"
        r"|do you (still )?have|have you got|(in|out of) stock|sold out|availability|vacanc(y|ies)"
        rf"|(tem|ha|resta|restam|sobrou|sobraram|quant[oa]s) (\w+ ){{0,2}}{_LUGARES}|tem (ess[ea]|est[ea])"
        r"|em estoque|esgotad\w+"
    ),
    "scores": (
        r"scores?|(who|whos)( is| are)? (winning|leading|ahead|playing|losing|in the lead)|standings|league table"
        r"|(the )?results? of( the| last)?( \w+){0,2} (game|match|race|fight|election|draw|vote)|top of the|leads the"
        r"|how far (ahead|behind)|how did (\w+ ){1,3}do|^who \w+( me| us)?$"
        r"|did (\w+ ){1,4}(win|lose|pass|fail|finish|qualify|score|beat \w+)"
        r"|who won( the)?( \w+)? (game|match|race|fight|election|derby)$|who won$"
        r"|placar|quem (esta|ta|vai) (\w+ )?(ganhando|vencendo|perdendo|liderando|jogando|na frente|ganhar)"
        r"|quem (ganhou|venceu)( o| a)? (jogo|partida|corrida|eleicao|luta)$|quanto (foi|ficou|esta) o jogo"
        r"|resultado do|quem lidera|lider d[oa]|(ganhou|venceu|perdeu|caiu|subiu|empatou)$|(abriu|fechou) em"
    ),
    "what state it is in": (
        rf"(is|are) (\w+ ){{1,4}}{_STATES}|status (of|for)|whats? the status|outages?"
        r"|(is|are) (\w+ ){0,5}(having|waiting|loading|coming|happening|going on|streaming|failing|moving|showing)"
        r"|why (hasnt|isnt|arent|wont|havent|cant)|hows? (is |are )?(the )?(\w+ ){1,3}(doing|going)|problems with"
        r"|^(is|are|has|have) (the|our|your|this|that|there|any\w+|we|it|they)|(whens|hows) the|has it|have they"
        r"|when (is|does|do|can|will) (the|your|our)"
        r"|como (esta|estao|anda|andam)|quant[oa]s \w+ estao"
        r"|(order|flight|build|server|service|system|job|deploy\w*|train) status"
        rf"|(esta|estao|ta|tao|continua|ficou) (\w+ )?{_ESTADOS}|status d[aeo]|situacao d[ao] (pedido|voo|entrega)"
    ),
    "weather": (
        r"weather|forecast|(whats|what is) the temperature|whats? (is )?it like"
        r"|how (hot|cold|warm|humid|windy|deep|busy|crowded|full|high) is (it|the)|is it \w+ing\b"
        r"|is it (hot|cold|warm|sunny|cloudy|windy|dark)|will it (\w+ )?(rain|snow|be)"
        r"|need an? (coat|jacket|umbrella)"
        r"|clima|previsao d[eo] (tempo|chuva)|qual a temperatura|temperatura (em|no|na)|chovendo|nevando"
        r"|vai (chover|nevar|fazer)"
        r"|(esta|ta|faz|fazendo) (\w+ )?(frio|calor|quente|sol)"
    ),
    "what comes next": (
        r"next (bus|train|flight|ferry|tram|metro|game|match|race|meeting|departure|episode|election|launch|payment)"
        r"|how (long|bad) is the (wait|queue|line|delay)|traffic (in|on|to|like|now|jam)|the traffic"
        r"|proxim[oa] (onibus|trem|voo|metro|jogo|partida|corrida|reuniao|eleicao|episodio|barco)|o transito"
        r"|fila|de plantao"
    ),
}
"""What is asked for -> how it is asked."""

_GROUP = re.compile(r"\((?!\?)")
"""Groups that capture take twice as long."""

_ANY = re.compile(rf"\b(?:{'|'.join(_GROUP.sub('(?:', pattern) for pattern in TOPICS.values())})\b")


def is_live(words: str) -> bool:
    """Is it of now? `words`: of the question, as `words_of` gives them, one blank apart."""
    return _ANY.search(words) is not None
