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
    Sven
    Jin-woo
    Aino
    William | Guillaume | Wilhelm | Guillermo
    Joseph | Joseph | Josef | José
    Haruto
    Bogdan
    Leila
    Elizabeth | Élisabeth | Elisabeth | Isabel
    Susan | Suzanne | Susanne | Susana
    Amara
    Priya
    Fatou
    Giovanni
    Katarzyna
    Mark | Marc | Markus | Marcos
    Astrid
    Niamh
    Miriam
    George | Georges | Georg | Jorge
    Ousmane
    Christopher | Christophe | Christoph | Cristóbal
    Stephen | Stéphane | Stefan | Esteban
    Andrew | André | Andreas | Andrés
    Samira
    Eleni
    Zanele
    Matthew | Mathieu | Matthias | Mateo
    Ximena
    Yusuf
    Oscar | Oscar | Oskar | Óscar
    Charlotte | Charlotte | Charlotte | Carlota
    Jürgen
    Edward | Édouard | Eduard | Eduardo
    Kevin
    Yuki
    Ioana
    Thiago
    Frederick | Frédéric | Friedrich | Federico
    Declan
    Minh
    Lars
    Giulia
    Beatrice | Béatrice | Beatrix | Beatriz
    Freja
    Lawrence | Laurent | Lorenz | Lorenzo
    Mehmet
    Catherine | Catherine | Katharina | Catalina
    Alexander | Alexandre | Alexander | Alejandro
    Svetlana | Svetlana | Swetlana | Svetlana
    João
    Valerie | Valérie | Valerie | Valeria
    Caroline | Caroline | Karoline | Carolina
    Anjali
    Charles | Charles | Karl | Carlos
    Arjun
    Ayşe
    Ibrahim
    John | Jean | Johann | Juan
    Chiara
    Chinedu
    Emre
    Akira
    Ilona
    Margaret | Marguerite | Margarete | Margarita
    Robert | Robert | Robert | Roberto
    Francis | François | Franz | Francisco
    Veronica | Véronique | Veronika | Verónica
    Matti
    Kwame
    Benjamin | Benjamin | Benjamin | Benjamín
    Ravi
    Zoltán
    Thabo
    Wei
    Vincent | Vincent | Vinzenz | Vicente
    Dimitris
    Lucy | Lucie | Luzia | Lucía
    Linh
    Dmitri
    Xiaoling
    Khadija
    Tariq
    Luca
    Wojciech
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
    Walker
    Ndiaye
    Peeters
    Dvořák
    Roux
    Cabrera
    De Vries
    Al-Masri
    Kaya
    Ortega
    Svoboda
    Bennett
    McCarthy
    Khalil
    Tran
    Fischer
    Ricci
    Vázquez
    Esposito
    Mendoza
    Lambert
    Wiśniewski
    Edwards
    Almeida
    Nakamura
    De Santis
    Virtanen
    O'Connor
    Kobayashi
    Fournier
    Keita
    Oliveira
    Moretti
    Ramírez
    Papadopoulos
    Johansson
    Köhler
    Zieliński
    Petrović
    Horvat
    Patel
    Pham
    Gupta
    Zhang
    Suzuki
    Kelly
    Popescu
    Wagner
    Traoré
    Hansen
    Banerjee
    Ionescu
    Reddy
    Walsh
    Kamau
    Bergström
    Szabó
    Şahin
    Neumann
    Nielsen
    Stewart
    Hosseini
    Adeyemi
    Lemaire
    Ben Salem
    Le Goff
    Carvalho
    Dupont
    Robinson
    Bakker
    Van Dijk
    Kim
    Cohen
    Dimitrov | Dimitrov | Dimitrow | Dimitrov
    Gauthier
    Aguirre
    Dlamini
    Kuznetsov | Kouznetsov | Kusnezow | Kuznetsov
    Mensah
    Romano
    Santos
    Bertrand
    Wang
    Mansour
    Sokolov | Sokolov | Sokolow | Sokolov
    Schäfer
    Chen
    Korhonen
    Sharma
    Domínguez
    Watanabe
    Demir
    Yamamoto
    Choi
    Bauer
    Petrosyan
    Pereira
    El Amrani
    Janssen
    Hartmann
    Wright
    Quispe
    Shevchenko | Chevtchenko | Schewtschenko | Shevchenko
    Nagy
    Wilson
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
    Salzburg | Salzbourg | Salzburg | Salzburgo
    Tallinn | Tallinn | Tallinn | Tallin
    Jakarta | Jakarta | Jakarta | Yakarta
    Kyiv | Kiev | Kiew | Kiev
    Rotterdam | Rotterdam | Rotterdam | Róterdam
    Porto | Porto | Porto | Oporto
    Nice | Nice | Nizza | Niza
    Avignon | Avignon | Avignon | Aviñón
    Bilbao
    Leipzig
    Ho Chi Minh City | Hô Chi Minh-Ville | Ho-Chi-Minh-Stadt | \
Ciudad Ho Chi Minh
    San Sebastián | Saint-Sébastien | San Sebastián | San Sebastián
    San Diego
    Perpignan | Perpignan | Perpignan | Perpiñán
    Hong Kong
    Regensburg | Ratisbonne | Regensburg | Ratisbona
    Porto Alegre
    Lucerne | Lucerne | Luzern | Lucerna
    Aachen | Aix-la-Chapelle | Aachen | Aquisgrán
    Novi Sad
    Tehran | Téhéran | Teheran | Teherán
    Bern | Berne | Bern | Berna
    Belgrade | Belgrade | Belgrad | Belgrado
    Mainz | Mayence | Mainz | Maguncia
    Kuala Lumpur
    Frankfurt | Francfort | Frankfurt | Fráncfort
    Palermo | Palerme | Palermo | Palermo
    Liège | Liège | Lüttich | Lieja
    La Paz
    Trier | Trèves | Trier | Tréveris
    Stuttgart
    Málaga | Malaga | Málaga | Málaga
    Ljubljana | Ljubljana | Ljubljana | Liubliana
    Oslo
    Dar es Salaam | Dar es Salam | Daressalam | Dar es-Salam
    Zagreb
    Baghdad | Bagdad | Bagdad | Bagdad
    Havana | La Havane | Havanna | La Habana
    Zurich | Zurich | Zürich | Zúrich
    Bologna | Bologne | Bologna | Bolonia
    Odesa | Odessa | Odessa | Odesa
    Krakow | Cracovie | Krakau | Cracovia
    Marrakesh | Marrakech | Marrakesch | Marrakech
    Bangkok
    Medellín
    Addis Ababa | Addis-Abeba | Addis Abeba | Adís Abeba
    Düsseldorf
    Trieste | Trieste | Triest | Trieste
    Ankara
    Beirut | Beyrouth | Beirut | Beirut
    Belo Horizonte
    Abu Dhabi | Abou Dabi | Abu Dhabi | Abu Dabi
    Zaragoza | Saragosse | Saragossa | Zaragoza
    Dakar
    Lviv | Lviv | Lwiw | Leópolis
    Algiers | Alger | Algier | Argel
    New Orleans | La Nouvelle-Orléans | New Orleans | Nueva Orleans
    Bruges | Bruges | Brügge | Brujas
    Cadiz | Cadix | Cádiz | Cádiz
    Hanover | Hanovre | Hannover | Hanóver
    Kyoto | Kyoto | Kyoto | Kioto
    Genoa | Gênes | Genua | Génova
    Budapest
    Shanghai | Shanghai | Shanghai | Shanghái
    Gothenburg | Göteborg | Göteborg | Gotemburgo
    Las Vegas
    Tel Aviv | Tel-Aviv | Tel Aviv | Tel Aviv
    Alexandria | Alexandrie | Alexandria | Alejandría
    Dresden | Dresde | Dresden | Dresde
    Sydney | Sydney | Sydney | Sídney
    The Hague | La Haye | Den Haag | La Haya
    Seattle
    Salt Lake City
    São Paulo
    Thessaloniki | Thessalonique | Thessaloniki | Salónica
    Montevideo
    Vilnius | Vilnius | Vilnius | Vilna
    Santo Domingo | Saint-Domingue | Santo Domingo | Santo Domingo
    Mumbai | Bombay | Mumbai | Bombay
    Manila | Manille | Manila | Manila
    Amsterdam | Amsterdam | Amsterdam | Ámsterdam
    Grenoble
    Johannesburg | Johannesbourg | Johannesburg | Johannesburgo
    Bucharest | Bucarest | Bukarest | Bucarest
    Nantes
    Gdansk | Gdańsk | Danzig | Gdansk
    Philadelphia | Philadelphie | Philadelphia | Filadelfia
    Ghent | Gand | Gent | Gante
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
    Flanders | la Flandre | Flandern | Flandes
    South Tyrol | le Tyrol du Sud | Südtirol | el Tirol del Sur
    the Loire | la Loire | die Loire | el Loira
    Turkey | la Turquie | die Türkei | Turquía
    Switzerland | la Suisse | die Schweiz | Suiza
    Lombardy | la Lombardie | die Lombardei | Lombardía
    India | l' Inde | Indien | la India
    Austria | l' Autriche | Österreich | Austria
    Sri Lanka | le Sri Lanka | Sri Lanka | Sri Lanka
    Finland | la Finlande | Finnland | Finlandia
    the Rhône | le Rhône | die Rhone | el Ródano
    Saudi Arabia | l' Arabie saoudite | Saudi-Arabien | Arabia Saudí
    Argentina | l' Argentine | Argentinien | Argentina
    Galicia | la Galice | Galicien | Galicia
    Vietnam | le Vietnam | Vietnam | Vietnam
    the Vistula | la Vistule | die Weichsel | el Vístula
    Belgium | la Belgique | Belgien | Bélgica
    South Korea | la Corée du Sud | Südkorea | Corea del Sur
    Ukraine | l' Ukraine | die Ukraine | Ucrania
    Kenya | le Kenya | Kenia | Kenia
    Iceland | l' Islande | Island | Islandia
    Denmark | le Danemark | Dänemark | Dinamarca
    the Dominican Republic | la République dominicaine | \
die Dominikanische Republik | la República Dominicana
    Nigeria | le Nigeria | Nigeria | Nigeria
    Hungary | la Hongrie | Ungarn | Hungría
    Costa Rica | le Costa Rica | Costa Rica | Costa Rica
    the Moselle | la Moselle | die Mosel | el Mosela
    the Czech Republic | la République tchèque | Tschechien | \
la República Checa
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
    Maersk
    American Express
    Mitsubishi
    General Electric
    Ferrovial
    Alibaba
    Embraer
    Gazprom
    ING
    Singapore Airlines
    Shell
    Toshiba
    Amazon
    Citroën
    Société Générale
    Spotify
    Lenovo
    Audi
    Inditex
    BMW
    Qualcomm
    AstraZeneca
    Iberdrola
    Nvidia
    Novartis
    Sanofi
    BASF
    Apple
    Hyundai
    Starbucks
    Novo Nordisk
    Turkish Airlines
    Procter & Gamble
    Thyssenkrupp
    Tesco
    Delta Air Lines
    British Airways
    Pfizer
    Cemex
    Peugeot
    Tata Motors
    Walmart
    Zalando
    Panasonic
    Goldman Sachs
    Xiaomi
    Volvo
    Puma
    Infosys
    Louis Vuitton
    Adidas
    Ericsson
    Heineken
    Barclays
    Texas Instruments
    Petrobras
    Fujitsu
    Lidl
    TotalEnergies
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
    Everton | Everton | Everton | el Everton
    Eintracht Frankfurt | l' Eintracht Francfort | Eintracht Frankfurt | \
el Eintracht de Fráncfort
    Aston Villa | Aston Villa | Aston Villa | el Aston Villa
    Feyenoord | le Feyenoord Rotterdam | Feyenoord Rotterdam | el Feyenoord
    Stade Rennais | le Stade rennais | Stade Rennes | el Stade Rennais
    Werder Bremen | le Werder Brême | Werder Bremen | el Werder Bremen
    Hansa Rostock | le Hansa Rostock | Hansa Rostock | el Hansa Rostock
    Lazio | la Lazio | Lazio Rom | la Lazio
    Rapid Vienna | le Rapid Vienne | Rapid Wien | el Rapid de Viena
    Partizan Belgrade | le Partizan Belgrade | Partizan Belgrad | \
el Partizán de Belgrado
    Fenerbahçe | Fenerbahçe | Fenerbahçe | el Fenerbahçe
    Olympique de Marseille | l' Olympique de Marseille | \
Olympique Marseille | el Olympique de Marsella
    Fiorentina | la Fiorentina | AC Florenz | la Fiorentina
    Hertha Berlin | le Hertha Berlin | Hertha BSC | el Hertha de Berlín
    Sporting Lisbon | le Sporting Lisbonne | Sporting Lissabon | \
el Sporting de Lisboa
    Sampdoria | la Sampdoria | Sampdoria Genua | la Sampdoria
    Manchester City | Manchester City | Manchester City | el Manchester City
    River Plate | River Plate | River Plate | el River Plate
    Arsenal | Arsenal | Arsenal | el Arsenal
    Rayo Vallecano | le Rayo Vallecano | Rayo Vallecano | el Rayo Vallecano
    Boca Juniors | Boca Juniors | Boca Juniors | el Boca Juniors
    Union Berlin | l' Union Berlin | Union Berlin | el Unión Berlín
    Celtic | le Celtic Glasgow | Celtic Glasgow | el Celtic de Glasgow
    Olympiacos | l' Olympiakos | Olympiakos Piräus | el Olympiacos
    Flamengo | Flamengo | Flamengo | el Flamengo
    Dinamo Zagreb | le Dinamo Zagreb | Dinamo Zagreb | el Dinamo de Zagreb
    Real Betis | le Real Betis | Betis Sevilla | el Real Betis
    Standard Liège | le Standard de Liège | Standard Lüttich | \
el Standard de Lieja
    Celta Vigo | le Celta Vigo | Celta Vigo | el Celta de Vigo
    Borussia Mönchengladbach | le Borussia Mönchengladbach | \
Borussia Mönchengladbach | el Borussia Mönchengladbach
    Atalanta | l' Atalanta Bergame | Atalanta Bergamo | el Atalanta
    Legia Warsaw | le Legia Varsovie | Legia Warschau | el Legia de Varsovia
    Spartak Moscow | le Spartak Moscou | Spartak Moskau | el Spartak de Moscú
    Slavia Prague | le Slavia Prague | Slavia Prag | el Slavia de Praga
    Real Sociedad | la Real Sociedad | Real Sociedad | la Real Sociedad
    Athletic Bilbao | l' Athletic Bilbao | Athletic Bilbao | \
el Athletic de Bilbao
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
    the University of Warsaw | l' Université de Varsovie | \
die Universität Warschau | la Universidad de Varsovia
    the FBI | le FBI | das FBI | el FBI
    the World Food Programme | le Programme alimentaire mondial | \
das Welternährungsprogramm | el Programa Mundial de Alimentos
    the International Labour Organization | \
l' Organisation internationale du travail | \
die Internationale Arbeitsorganisation | \
la Organización Internacional del Trabajo
    the Sorbonne | la Sorbonne | die Sorbonne | la Sorbona
    Caritas | Caritas | die Caritas | Cáritas
    the Catholic Church | l' Église catholique | die Katholische Kirche | \
la Iglesia católica
    the University of Heidelberg | l' Université de Heidelberg | \
die Universität Heidelberg | la Universidad de Heidelberg
    the Pirate Party | le Parti pirate | die Piratenpartei | el Partido Pirata
    Human Rights Watch
    the Bank of England | la Banque d' Angleterre | die Bank of England | \
el Banco de Inglaterra
    the House of Commons | la Chambre des communes | das Unterhaus | \
la Cámara de los Comunes
    Doctors Without Borders | Médecins sans frontières | Ärzte ohne Grenzen | \
Médicos Sin Fronteras
    the Royal Society | la Royal Society | die Royal Society | la Royal Society
    Amnesty International | Amnesty International | Amnesty International | \
Amnistía Internacional
    NASA | la NASA | die NASA | la NASA
    the European Space Agency | l' Agence spatiale européenne | \
die Europäische Weltraumorganisation | la Agencia Espacial Europea
    the University of Cambridge | l' Université de Cambridge | \
die Universität Cambridge | la Universidad de Cambridge
    the Federal Reserve | la Réserve fédérale | die Federal Reserve | \
la Reserva Federal
    the Green Party | le Parti vert | die Grüne Partei | el Partido Verde
    the Democratic Party | le Parti démocrate | die Demokratische Partei | \
el Partido Demócrata
    Oxfam
    the International Energy Agency | \
l' Agence internationale de l' énergie | die Internationale Energieagentur | \
la Agencia Internacional de la Energía
    the Republican Party | le Parti républicain | \
die Republikanische Partei | el Partido Republicano
    the BBC | la BBC | die BBC | la BBC
    the University of Geneva | l' Université de Genève | \
die Universität Genf | la Universidad de Ginebra
    Greenpeace
    the Arab League | la Ligue arabe | die Arabische Liga | la Liga Árabe
    Interpol
    OPEC | l' OPEP | die OPEC | la OPEP
    the UN | l' ONU | die UNO | la ONU
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
    The Tin Drum | Le Tambour | Die Blechtrommel | El tambor de hojalata
    Moby Dick
    The Neverending Story | L' Histoire sans fin | \
Die unendliche Geschichte | La historia interminable
    The Barber of Seville | Le Barbier de Séville | Der Barbier von Sevilla | \
El barbero de Sevilla
    The Lives of Others | La Vie des autres | Das Leben der Anderen | \
La vida de los otros
    The Shadow of the Wind | L' Ombre du vent | Der Schatten des Windes | \
La sombra del viento
    Frozen | La Reine des neiges | Die Eiskönigin | Frozen
    Lord of the Flies | Sa Majesté des mouches | Herr der Fliegen | \
El señor de las moscas
    Gulliver's Travels | Les Voyages de Gulliver | Gullivers Reisen | \
Los viajes de Gulliver
    Madame Bovary
    Don Quixote | Don Quichotte | Don Quijote | Don Quijote
    Schindler's List | La Liste de Schindler | Schindlers Liste | \
La lista de Schindler
    The Magic Mountain | La Montagne magique | Der Zauberberg | \
La montaña mágica
    Wuthering Heights | Les Hauts de Hurlevent | Sturmhöhe | \
Cumbres borrascosas
    Aida | Aïda | Aida | Aida
    The Merry Widow | La Veuve joyeuse | Die lustige Witwe | La viuda alegre
    The Birds | Les Oiseaux | Die Vögel | Los pájaros
    Money Heist | La Casa de papel | Haus des Geldes | La casa de papel
    Finding Nemo | Le Monde de Nemo | Findet Nemo | Buscando a Nemo
    The Name of the Rose | Le Nom de la rose | Der Name der Rose | \
El nombre de la rosa
    Pan's Labyrinth | Le Labyrinthe de Pan | Pans Labyrinth | \
El laberinto del fauno
    Macbeth
    Oppenheimer
    Back to the Future | Retour vers le futur | Zurück in die Zukunft | \
Regreso al futuro
    West Side Story
    Treasure Island | L' Île au trésor | Die Schatzinsel | La isla del tesoro
    Stranger Things
    Downfall | La Chute | Der Untergang | El hundimiento
    Jaws | Les Dents de la mer | Der weiße Hai | Tiburón
    Peter Pan
    The House of the Spirits | La Maison aux esprits | Das Geisterhaus | \
La casa de los espíritus
    Faust | Faust | Faust | Fausto
    The Phantom of the Opera | Le Fantôme de l' Opéra | \
Das Phantom der Oper | El fantasma de la ópera
    Othello | Othello | Othello | Otelo
    Mamma Mia
    Psycho | Psychose | Psycho | Psicosis
    Dracula | Dracula | Dracula | Drácula
    Anna Karenina | Anna Karénine | Anna Karenina | Ana Karenina
    Cats
    Pride and Prejudice | Orgueil et Préjugés | Stolz und Vorurteil | \
Orgullo y prejuicio
    Squid Game | Squid Game | Squid Game | El juego del calamar
    Cinderella | Cendrillon | Aschenputtel | La Cenicienta
    The Hobbit | Le Hobbit | Der Hobbit | El hobbit
    The Flying Dutchman | Le Vaisseau fantôme | Der fliegende Holländer | \
El holandés errante
    King Lear | Le Roi Lear | König Lear | El rey Lear
    The Dark Knight | The Dark Knight | The Dark Knight | El caballero oscuro
    Brave New World | Le Meilleur des mondes | Schöne neue Welt | \
Un mundo feliz
    Ratatouille
    Pulp Fiction
    One Hundred Years of Solitude | Cent ans de solitude | \
Hundert Jahre Einsamkeit | Cien años de soledad
    The Three Musketeers | Les Trois Mousquetaires | Die drei Musketiere | \
Los tres mosqueteros
    Life Is Beautiful | La vie est belle | Das Leben ist schön | \
La vida es bella
    All About My Mother | Tout sur ma mère | Alles über meine Mutter | \
Todo sobre mi madre
    Animal Farm | La Ferme des animaux | Farm der Tiere | Rebelión en la granja
    Little Red Riding Hood | Le Petit Chaperon rouge | Rotkäppchen | \
Caperucita Roja
    Romeo and Juliet | Roméo et Juliette | Romeo und Julia | Romeo y Julieta
    Forrest Gump
    The Stranger | L' Étranger | Der Fremde | El extranjero
    The Old Man and the Sea | Le Vieil Homme et la Mer | \
Der alte Mann und das Meer | El viejo y el mar
    The Silence of the Lambs | Le Silence des agneaux | \
Das Schweigen der Lämmer | El silencio de los corderos
    The Jungle Book | Le Livre de la jungle | Das Dschungelbuch | \
El libro de la selva
    The Plague | La Peste | Die Pest | La peste
    Dune | Dune | Der Wüstenplanet | Dune
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
    Nintendo Switch
    TikTok
    Dropbox
    Nespresso
    Surface Pro
    iPad
    Google Maps
    Raspberry Pi
    Pepsi
    WordPress
    Ubuntu
    Snapchat
    Pac-Man
    Steam Deck
    iMac
    Walkman
    Apple Watch
    Google Chrome
    Skype
    Firefox
    Playmobil
    Mario Kart
    Linux
    Call of Duty
    YouTube
    PowerPoint
    ChatGPT
    Thermomix
    Roomba
    Telegram
    Fortnite
    Trivial Pursuit
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
    the Montreux Jazz Festival | le Montreux Jazz Festival | \
das Montreux Jazz Festival | el Festival de Jazz de Montreux
    Comic-Con | le Comic-Con | die Comic-Con | la Comic-Con
    the Dakar Rally | le Rallye Dakar | die Rallye Dakar | el Rally Dakar
    the Rugby World Cup | la Coupe du monde de rugby | \
die Rugby-Weltmeisterschaft | la Copa Mundial de Rugby
    the Frankfurt Book Fair | la Foire du livre de Francfort | \
die Frankfurter Buchmesse | la Feria del Libro de Fráncfort
    the EuroLeague | l' Euroligue | die EuroLeague | la Euroliga
    the Universiade | l' Universiade | die Universiade | la Universiada
    Coachella
    the Tour de Suisse | le Tour de Suisse | die Tour de Suisse | \
la Vuelta a Suiza
    the Venice Film Festival | la Mostra de Venise | \
das Filmfestival von Venedig | la Mostra de Venecia
    the Monte Carlo Rally | le Rallye Monte-Carlo | die Rallye Monte Carlo | \
el Rally de Montecarlo
    the Four Hills Tournament | la Tournée des quatre tremplins | \
die Vierschanzentournee | el Torneo de los Cuatro Trampolines
    Carnival | le Carnaval | Karneval | el Carnaval
    the Conference League | la Ligue Conférence | die Conference League | \
la Liga Conferencia
    the Documenta | la Documenta | die Documenta | la Documenta
    Roland Garros | Roland-Garros | Roland Garros | Roland Garros
    the Asian Cup | la Coupe d' Asie | die Asienmeisterschaft | \
la Copa Asiática
    Kiel Week | la Semaine de Kiel | die Kieler Woche | la Semana de Kiel
    the Club World Cup | la Coupe du monde des clubs | \
die Klub-Weltmeisterschaft | el Mundial de Clubes
    the Love Parade | la Love Parade | die Loveparade | la Love Parade
    Museum Night | la Nuit des musées | die Lange Nacht der Museen | \
la Noche de los Museos
    the Copa Libertadores | la Copa Libertadores | die Copa Libertadores | \
la Copa Libertadores
    Art Basel | Art Basel | die Art Basel | Art Basel
    the Eredivisie | l' Eredivisie | die Eredivisie | la Eredivisie
    Hanukkah | Hanoukka | Chanukka | Janucá
    Formula One | la Formule 1 | die Formel 1 | la Fórmula 1
    Fashion Week | la Fashion Week | die Fashion Week | la Semana de la Moda
    Thanksgiving | Thanksgiving | Thanksgiving | Acción de Gracias
    Rock am Ring
    Burning Man | Burning Man | das Burning Man | el Burning Man
    the Chess Olympiad | l' Olympiade d' échecs | die Schacholympiade | \
la Olimpiada de Ajedrez
    Pentecost | la Pentecôte | Pfingsten | Pentecostés
    Diwali
    the Cannes Film Festival | le Festival de Cannes | \
das Filmfestival von Cannes | el Festival de Cannes
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
