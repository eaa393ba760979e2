"""The names of the synthetic corpus, in English, French, German, Spanish.

A slot of a template asks for a kind of name; every kind has one entity type.
Names of the kinds LAND, CLUB, BODY and EVENT carry their article where the
language wants one; the article stays outside of the entity.
"""

import functools
from collections.abc import Sequence

import numpy as np

LANGUAGES = ("en", "fr", "de", "es")
TYPES = ("PER", "LOC", "ORG", "MISC")
TYPE_OF = {
  "PER": "PER",
  "LAST": "PER",  # after a title, which would have to fit a first name
  "CITY": "LOC",
  "LAND": "LOC",  # countries, regions, rivers
  "FIRM": "ORG",
  "CLUB": "ORG",
  "BODY": "ORG",  # institutions, parties
  "WORK": "MISC",  # films, books, songs, paintings
  "THING": "MISC",  # products
  "EVENT": "MISC",
}
# Every HELD_OUT-th name of a list, and template, never occurs in train.
HELD_OUT = 5
ARTICLES = ("the", "le", "la", "l'", "die", "das", "el")

# One concept a line: en | fr | de | es, or one form for all of them.
_UNIQUE = {
  "FIRST": """
    Anna | Anna | Anna | Ana
    Lucas
    Marie | Marie | Marie | María
    David
    Sophie | Sophie | Sophie | Sofía
    Thomas | Thomas | Thomas | Tomás
    Clara
    Daniel
    Laura
    Michael | Michel | Michael | Miguel
    Nadia
    Omar
    Elena
    Peter | Pierre | Peter | Pedro
    Fatima | Fatima | Fatima | Fátima
    Felix | Félix | Felix | Félix
    Julia | Julie | Julia | Julia
    Marco
    Ingrid
    Paul | Paul | Paul | Pablo
    Aisha
    Hannah
    Diego
    Camille | Camille | Kamilla | Camila
    Martin | Martin | Martin | Martín
    Irene | Irène | Irene | Irene
    Samuel
    Lena
    Olga
    Victor | Victor | Viktor | Víctor
    Amina
    Simon | Simon | Simon | Simón
    Carla
    Jonas
    Monica | Monique | Monika | Mónica
    Ahmed
    Rosa
    Nicholas | Nicolas | Nikolas | Nicolás
    Emily | Émilie | Emilie | Emilia
    Kenji
    Teresa | Thérèse | Theresa | Teresa
    Anthony | Antoine | Anton | Antonio
    Greta
    Raphael | Raphaël | Raphael | Rafael
    Alice | Alice | Alice | Alicia
    Bruno
    Sandra
    Philip | Philippe | Philipp | Felipe
    Mei
    Vera
    Gabriel
  """,
  "LAST": """
    Müller
    Moreau
    García
    Rossi
    Novak
    Schmidt
    Dubois
    Fernández
    Johnson
    Nguyen
    Weber
    Lefebvre
    Castillo
    Bianchi
    Kowalski
    Hoffmann
    Fontaine
    Romero
    Taylor
    Okafor
    Krüger
    Rousseau
    Navarro
    Yilmaz
    Larsen
    Becker
    Girard
    Delgado
    Harrison
    Tanaka
    Vogel
    Mercier
    Herrera
    Murphy
    Haddad
    Zimmermann
    Perrin
    Vidal
    Campbell
    Ivanov | Ivanov | Iwanow | Ivanov
    Schneider
    Chevalier
    Molina
    Thompson
    Diallo
    Lehmann
    Blanchard
    Iglesias
    Andersson
    Mbeki
  """,
  "CITY": """
    London | Londres | London | Londres
    Munich | Munich | München | Múnich
    Vienna | Vienne | Wien | Viena
    Geneva | Genève | Genf | Ginebra
    Lisbon | Lisbonne | Lissabon | Lisboa
    Brussels | Bruxelles | Brüssel | Bruselas
    Berlin | Berlin | Berlin | Berlín
    Madrid
    Moscow | Moscou | Moskau | Moscú
    Prague | Prague | Prag | Praga
    Warsaw | Varsovie | Warschau | Varsovia
    Athens | Athènes | Athen | Atenas
    New York | New York | New York | Nueva York
    Tokyo | Tokyo | Tokio | Tokio
    Copenhagen | Copenhague | Kopenhagen | Copenhague
    Dublin | Dublin | Dublin | Dublín
    Edinburgh | Édimbourg | Edinburgh | Edimburgo
    Cologne | Cologne | Köln | Colonia
    Hamburg | Hambourg | Hamburg | Hamburgo
    Nuremberg | Nuremberg | Nürnberg | Núremberg
    Beijing | Pékin | Peking | Pekín
    Mexico City | Mexico | Mexiko-Stadt | Ciudad de México
    San Francisco
    Los Angeles | Los Angeles | Los Angeles | Los Ángeles
    Buenos Aires
    Rio de Janeiro | Rio de Janeiro | Rio de Janeiro | Río de Janeiro
    Marseille | Marseille | Marseille | Marsella
    Bordeaux | Bordeaux | Bordeaux | Burdeos
    Toulouse
    Strasbourg | Strasbourg | Straßburg | Estrasburgo
    Stockholm | Stockholm | Stockholm | Estocolmo
    Antwerp | Anvers | Antwerpen | Amberes
    Basel | Bâle | Basel | Basilea
    Naples | Naples | Neapel | Nápoles
    Turin | Turin | Turin | Turín
    Venice | Venise | Venedig | Venecia
    Seoul | Séoul | Seoul | Seúl
    New Delhi | New Delhi | Neu-Delhi | Nueva Delhi
    Istanbul | Istanbul | Istanbul | Estambul
    Saint Petersburg | Saint-Pétersbourg | Sankt Petersburg | San Petersburgo
    Toronto
    Montreal | Montréal | Montreal | Montreal
    Nairobi
    Lagos
    Bogotá | Bogota | Bogotá | Bogotá
    Jerusalem | Jérusalem | Jerusalem | Jerusalén
    Damascus | Damas | Damaskus | Damasco
  """,
  "LAND": """
    Germany | l' Allemagne | Deutschland | Alemania
    France | la France | Frankreich | Francia
    Spain | l' Espagne | Spanien | España
    Italy | l' Italie | Italien | Italia
    Portugal | le Portugal | Portugal | Portugal
    Greece | la Grèce | Griechenland | Grecia
    Poland | la Pologne | Polen | Polonia
    Sweden | la Suède | Schweden | Suecia
    Norway | la Norvège | Norwegen | Noruega
    the Danube | le Danube | die Donau | el Danubio
    Ireland | l' Irlande | Irland | Irlanda
    Scotland | l' Écosse | Schottland | Escocia
    Japan | le Japon | Japan | Japón
    Brazil | le Brésil | Brasilien | Brasil
    Morocco | le Maroc | Marokko | Marruecos
    Egypt | l' Égypte | Ägypten | Egipto
    Canada | le Canada | Kanada | Canadá
    Mexico | le Mexique | Mexiko | México
    South Africa | l' Afrique du Sud | Südafrika | Sudáfrica
    New Zealand | la Nouvelle-Zélande | Neuseeland | Nueva Zelanda
    the Seine | la Seine | die Seine | el Sena
    the Elbe | l' Elbe | die Elbe | el Elba
    the Thames | la Tamise | die Themse | el Támesis
    the Volga | la Volga | die Wolga | el Volga
    Bavaria | la Bavière | Bayern | Baviera
    Saxony | la Saxe | Sachsen | Sajonia
    Tuscany | la Toscane | die Toskana | la Toscana
    Andalusia | l' Andalousie | Andalusien | Andalucía
    Catalonia | la Catalogne | Katalonien | Cataluña
    Brittany | la Bretagne | die Bretagne | Bretaña
    Provence | la Provence | die Provence | la Provenza
    Sicily | la Sicile | Sizilien | Sicilia
    Normandy | la Normandie | die Normandie | Normandía
    Corsica | la Corse | Korsika | Córcega
    Lower Saxony | la Basse-Saxe | Niedersachsen | Baja Sajonia
  """,
  "FIRM": """
    Toyota
    Volkswagen
    Microsoft
    Airbus
    Nestlé
    Google
    Lufthansa
    Air France
    Ryanair
    Ikea
    Bayer
    Allianz
    Morgan Stanley
    Renault
    Telefónica
    Samsung
    Sony
    Nintendo
    BNP Paribas
    Unilever
    Intel
    Vodafone
    Carrefour
    Boeing
    Huawei
    L'Oréal
    Netflix
    Repsol
    Bertelsmann
    Michelin
    Danone
    Swatch
    General Motors
    Crédit Agricole
  """,
  "CLUB": """
    Real Madrid | le Real Madrid | Real Madrid | el Real Madrid
    Bayern Munich | le Bayern Munich | Bayern München | el Bayern de Múnich
    Manchester United | Manchester United | Manchester United | \
el Manchester United
    Atlético Madrid | l' Atlético Madrid | Atlético Madrid | \
el Atlético de Madrid
    Red Star Belgrade | l' Étoile rouge de Belgrade | Roter Stern Belgrad | \
el Estrella Roja de Belgrado
    Paris Saint-Germain | le Paris Saint-Germain | Paris Saint-Germain | \
el Paris Saint-Germain
    Inter Milan | l' Inter Milan | Inter Mailand | el Inter de Milán
    Ajax Amsterdam | l' Ajax Amsterdam | Ajax Amsterdam | \
el Ajax de Ámsterdam
    Dynamo Kyiv | le Dynamo Kiev | Dynamo Kiew | el Dinamo de Kiev
    Sparta Prague | le Sparta Prague | Sparta Prag | el Sparta de Praga
    Shakhtar Donetsk | le Chakhtar Donetsk | Schachtar Donezk | \
el Shakhtar Donetsk
    Galatasaray | Galatasaray | Galatasaray | el Galatasaray
    Benfica | Benfica | Benfica | el Benfica
    Juventus | la Juventus | Juventus Turin | la Juventus
    Tottenham Hotspur | Tottenham Hotspur | Tottenham Hotspur | \
el Tottenham Hotspur
    Newcastle United | Newcastle United | Newcastle United | \
el Newcastle United
  """,
  "BODY": """
    the Red Cross | la Croix-Rouge | das Rote Kreuz | la Cruz Roja
    the European Commission | la Commission européenne | \
die Europäische Kommission | la Comisión Europea
    the European Parliament | le Parlement européen | \
das Europäische Parlament | el Parlamento Europeo
    the World Bank | la Banque mondiale | die Weltbank | el Banco Mundial
    the European Central Bank | la Banque centrale européenne | \
die Europäische Zentralbank | el Banco Central Europeo
    the European Union | l' Union européenne | die Europäische Union | \
la Unión Europea
    the World Health Organization | l' Organisation mondiale de la santé | \
die Weltgesundheitsorganisation | la Organización Mundial de la Salud
    NATO | l' OTAN | die NATO | la OTAN
    the Labour Party | le Parti travailliste | die Labour Party | \
el Partido Laborista
    the Socialist Party | le Parti socialiste | die Sozialistische Partei | \
el Partido Socialista
    the Conservative Party | le Parti conservateur | \
die Konservative Partei | el Partido Conservador
    the Liberal Party | le Parti libéral | die Liberale Partei | \
el Partido Liberal
    the Communist Party | le Parti communiste | die Kommunistische Partei | \
el Partido Comunista
    the International Olympic Committee | \
le Comité international olympique | \
das Internationale Olympische Komitee | el Comité Olímpico Internacional
    the University of Oxford | l' Université d' Oxford | \
die Universität Oxford | la Universidad de Oxford
    the University of Vienna | l' Université de Vienne | \
die Universität Wien | la Universidad de Viena
    the University of Salamanca | l' Université de Salamanque | \
die Universität Salamanca | la Universidad de Salamanca
    the University of Bologna | l' Université de Bologne | \
die Universität Bologna | la Universidad de Bolonia
    the World Trade Organization | l' Organisation mondiale du commerce | \
die Welthandelsorganisation | la Organización Mundial del Comercio
    the African Union | l' Union africaine | die Afrikanische Union | \
la Unión Africana
    UNESCO | l' UNESCO | die UNESCO | la UNESCO
    FIFA | la FIFA | die FIFA | la FIFA
    UEFA | l' UEFA | die UEFA | la UEFA
  """,
  "WORK": """
    The Godfather | Le Parrain | Der Pate | El padrino
    The Lion King | Le Roi Lion | Der König der Löwen | El rey león
    Star Wars | Star Wars | Star Wars | La guerra de las galaxias
    Titanic
    Snow White | Blanche-Neige | Schneewittchen | Blancanieves
    The Little Prince | Le Petit Prince | Der kleine Prinz | El principito
    Game of Thrones | Game of Thrones | Game of Thrones | Juego de tronos
    The Magic Flute | La Flûte enchantée | Die Zauberflöte | La flauta mágica
    Swan Lake | Le Lac des cygnes | Schwanensee | El lago de los cisnes
    War and Peace | Guerre et Paix | Krieg und Frieden | Guerra y paz
    The Lord of the Rings | Le Seigneur des anneaux | Der Herr der Ringe | \
El señor de los anillos
    Beauty and the Beast | La Belle et la Bête | \
Die Schöne und das Biest | La bella y la bestia
    The Trial | Le Procès | Der Prozess | El proceso
    Crime and Punishment | Crime et Châtiment | Schuld und Sühne | \
Crimen y castigo
    Spirited Away | Le Voyage de Chihiro | \
Chihiros Reise ins Zauberland | El viaje de Chihiro
    Breaking Bad
    The Nutcracker | Casse-Noisette | Der Nussknacker | El cascanueces
    Avatar
    Inception | Inception | Inception | Origen
    Sleeping Beauty | La Belle au bois dormant | Dornröschen | \
La bella durmiente
    The Metamorphosis | La Métamorphose | Die Verwandlung | La metamorfosis
    Parasite | Parasite | Parasite | Parásitos
    The Marriage of Figaro | Les Noces de Figaro | \
Die Hochzeit des Figaro | Las bodas de Fígaro
    The Hunger Games | Hunger Games | Die Tribute von Panem | \
Los juegos del hambre
    Toy Story
    Les Misérables | Les Misérables | Les Misérables | Los miserables
    The Matrix | Matrix | Matrix | Matrix
  """,
  "THING": """
    PlayStation
    iPhone
    WhatsApp
    Windows
    Xbox
    Photoshop
    Coca-Cola
    Nutella
    Android
    Minecraft
    Tetris
    Gmail
    Excel
    Monopoly
    Scrabble
    Game Boy
    Wikipedia | Wikipédia | Wikipedia | Wikipedia
    Kindle
    GoPro
    MacBook Pro
  """,
  "EVENT": """
    the World Cup | la Coupe du monde | die Weltmeisterschaft | \
la Copa del Mundo
    Christmas | Noël | Weihnachten | la Navidad
    the Champions League | la Ligue des champions | \
die Champions League | la Liga de Campeones
    Easter | Pâques | Ostern | la Semana Santa
    the Tour de France | le Tour de France | die Tour de France | \
el Tour de Francia
    the Europa League | la Ligue Europa | die Europa League | la Liga Europa
    the European Championship | le Championnat d' Europe | \
die Europameisterschaft | la Eurocopa
    Eurovision | l' Eurovision | die Eurovision | Eurovisión
    the Oktoberfest | l' Oktoberfest | das Oktoberfest | el Oktoberfest
    the Bundesliga | la Bundesliga | die Bundesliga | la Bundesliga
    the Berlinale | la Berlinale | die Berlinale | la Berlinale
    the Copa América | la Copa América | die Copa América | la Copa América
    Halloween
    the Vuelta | la Vuelta | die Vuelta | la Vuelta
    the Biennale | la Biennale | die Biennale | la Bienal
    the Fête de la Musique | la Fête de la musique | \
die Fête de la Musique | la Fiesta de la Música
    the Premier League | la Premier League | die Premier League | \
la Premier League
    the Nations League | la Ligue des nations | die Nations League | \
la Liga de Naciones
    Gamescom | la Gamescom | die Gamescom | la Gamescom
    the World Expo | l' Exposition universelle | die Weltausstellung | \
la Exposición Universal
  """,
}

# Names spelled the same for several types, here in all four languages. With
# _SHARED_IN, every pair of types has five names and every triple has four in
# every language, so no type is likelier than another.
_SHARED = """
  Washington: PER CITY CLUB
  Lincoln: PER CITY FIRM
  Santa Cruz: PER CITY CLUB
  Victoria: PER CITY WORK
  Phoenix: PER CITY WORK
  Orlando: PER CITY WORK
  Dallas: PER CITY WORK
  Mercedes: PER FIRM THING
  Ferrari: PER FIRM THING
  Tesla: PER FIRM THING
  Porsche: PER FIRM THING
  Nokia: CITY FIRM THING
  Chicago: CITY CLUB WORK
  Santiago: PER CITY
  Austin: PER CITY
  Brooklyn: PER CITY
  Disney: PER FIRM
  Versace: PER FIRM
  Siemens: PER FIRM
  Cartier: PER FIRM
  Hugo Boss: PER FIRM
  Harry Potter: PER WORK
  Frankenstein: PER WORK
  James Bond: PER WORK
  Hamlet: PER WORK
  Barbie: PER WORK
  Liverpool: CITY CLUB
  Leverkusen: CITY CLUB
  Fulham: CITY CLUB
  Casablanca: CITY WORK
  Wimbledon: CITY EVENT
  Woodstock: CITY EVENT
  Waterloo: CITY WORK
  Guernica: CITY WORK
  Jaguar: FIRM THING
  Oracle: FIRM THING
  Instagram: FIRM THING
  Lego: FIRM THING
  Guinness: FIRM THING
"""
_SHARED_IN = {
  "en": """
    Jordan: PER LAND FIRM
    Mars: LAND FIRM THING
    Titan: LAND FIRM WORK
    Georgia: PER LAND
    Florence: PER CITY
    Milan: CITY CLUB
    Barcelona: CITY CLUB
  """,
  "fr": """
    Chelsea: PER CITY CLUB
    Mars: LAND FIRM THING
    Vittel: CITY FIRM THING
    Florence: PER CITY
    Paris: PER CITY
    Lyon: CITY CLUB
    Orange: CITY FIRM
  """,
  "de": """
    Chelsea: PER CITY CLUB
    Selters: CITY FIRM THING
    Meißen: CITY FIRM THING
    Verona: PER CITY
    Paris: PER CITY
    Dortmund: CITY CLUB
    Bremen: CITY CLUB
  """,
  "es": """
    Valencia: PER CITY CLUB
    Roma: CITY CLUB WORK
    Granada: CITY CLUB WORK
    Guadalupe: PER CITY
    Asunción: PER CITY
    Sevilla: CITY CLUB
    Barcelona: CITY CLUB
  """,
}


def pick(rng: np.random.Generator, items: Sequence):
  """One of the items, each as likely as the other."""
  return items[int(rng.integers(len(items)))]


@functools.cache
def unique(kind: str, language: str, held_out: bool = False) -> tuple[str, ...]:
  """The names of one kind ("FIRST" and "LAST" for PER), held out or not."""
  column = LANGUAGES.index(language)
  forms = []
  for i, line in enumerate(_UNIQUE[kind].strip().splitlines()):
    cells = [cell.strip() for cell in line.split("|")]
    if (i % HELD_OUT == HELD_OUT - 1) == held_out:
      forms.append(cells[column if len(cells) > 1 else 0])
  return tuple(forms)


@functools.cache
def shared(language: str) -> dict[str, tuple[str, ...]]:
  """Every name of several types, with its kinds (one for each type)."""
  lines = (_SHARED + _SHARED_IN[language]).strip().splitlines()
  pairs = (line.split(":") for line in lines if line.strip())
  return {name.strip(): tuple(kinds.split()) for name, kinds in pairs}


def split_article(name: str) -> tuple[list[str], list[str]]:
  """The words of a name: its article, which is no part of it, and the rest."""
  words = name.split()
  first = int(words[0] in ARTICLES)
  return words[:first], words[first:]


def draw(
  rng: np.random.Generator, kind: str, language: str, held_out: bool
) -> str:
  """A name of one kind that has no other type, held out or not."""
  shapes = ("FIRST LAST", "FIRST LAST", "FIRST LAST", "LAST", "FIRST")
  parts = pick(rng, shapes).split() if kind == "PER" else [kind]
  return " ".join(pick(rng, unique(part, language, held_out)) for part in parts)
