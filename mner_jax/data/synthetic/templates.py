"""The sentence templates of the synthetic corpus, tokenised by spaces.

{PER}, {CITY}, ... ask for a name of that kind (names.TYPE_OF), {ANY} for one
of several types; {day}, {number}, ... for a filler. A name of kind LAND, CLUB,
BODY or EVENT may bring its article: no French or Spanish template puts a word
before it that would contract ("de", "à", "a"), no German one a dative.
Every fifth line of a block is held out of train; the words that tell its
type also occur in lines of the block that are not.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mner_jax.data.synthetic import names
from mner_jax.data.synthetic.names import HELD_OUT

_NUMBERS = "3 5 8 12 15 20 25 40 60 90"
_AGES = "19 23 27 31 34 38 42 47 55 63 71 80"

_FILLERS = {
  "en": {
    "day": "on Monday, on Tuesday, on Wednesday, on Thursday, on Friday, "
    "on Saturday, on Sunday, yesterday",
    "time": "today, this week, this weekend, this month, this afternoon, "
    "this evening, this morning",
  },
  "fr": {
    "day": "lundi, mardi, mercredi, jeudi, vendredi, samedi, dimanche, hier",
    "time": "aujourd'hui, cette semaine, ce week-end, ce mois-ci, "
    "cet après-midi, ce soir, ce matin",
  },
  "de": {
    "day": "am Montag, am Dienstag, am Mittwoch, am Donnerstag, am Freitag, "
    "am Samstag, am Sonntag, gestern",
    "time": "heute, diese Woche, am Wochenende, in diesem Monat, "
    "heute Nachmittag, heute Abend, heute Morgen",
  },
  "es": {
    "day": "el lunes, el martes, el miércoles, el jueves, el viernes, "
    "el sábado, el domingo, ayer",
    "time": "hoy, esta semana, este fin de semana, este mes, esta tarde, "
    "esta noche, esta mañana",
  },
}

_CLEAR = {
  ("en", "PER"): """
    {PER} , {age} , was born in {CITY} .
    {PER} , {age} , has two children and lives in {CITY} .
    Happy birthday , {PER} , and many more years to come !
    The singer {PER} gave an interview {time} .
    {PER} , {age} , gave an interview {time} .
    " I am so tired , " said {PER} in the interview .
    " We will be back , " said coach {LAST} after the match .
    {PER} was born in {CITY} and works as a teacher .
    Congratulations to {PER} , who has just got married !
    Happy birthday to {PER} , who has just got married {time} !
    Doctors say that {PER} has a broken arm .
    {PER} told reporters about a childhood in {CITY} .
    {PER} told reporters : " We were very lucky . "
    Minister {LAST} met President {LAST} {time} .
    " We were so lucky , " {PER} told reporters .
    My neighbour {PER} has two children and a dog .
    President {LAST} shook hands with {PER} , {age} .
    Coach {LAST} , {age} , is happy with the team .
    The writer {PER} grew up in {CITY} and studied law .
    Minister {LAST} , {age} , grew up in {CITY} .
  """,
  ("en", "LOC"): """
    The mayor of {CITY} is resigning {time} .
    We flew to {CITY} and stayed there for a week .
    Heavy rain and {number} degrees in {CITY} {time} .
    The road from {CITY} to {CITY} is closed {time} .
    The mayor of {CITY} has closed the old town {time} .
    The streets of {CITY} and {CITY} are empty {time} .
    They are going to visit {LAND} in the summer .
    A storm hit {LAND} {time} .
    We crossed {LAND} in {number} days .
    Heavy rain in the streets of {CITY} {time} .
    A hotel in the old town of {CITY} costs {number} euros .
    This map shows {LAND} in detail .
    A storm is moving over the north of {CITY} {time} .
    Our train from {CITY} to {CITY} is {number} minutes late .
    {number} degrees and no rain in the north of {CITY} {time} .
    The company {FIRM} is building a hotel with {number} rooms near {CITY} .
    In the holidays we will visit {LAND} .
    The airport of {CITY} is closed {time} .
    {PER} , {age} , flew to {CITY} and stayed for {number} weeks .
    The road to the airport of {CITY} is closed {time} .
  """,
  ("en", "ORG"): """
    Shares of {FIRM} fell by {number} % {time} .
    The company {FIRM} is hiring {number} engineers .
    {FIRM} reported higher sales , and its shares rose by {number} % .
    {CLUB} beat {CLUB} 2-1 away from home {time} .
    Shares of the company {FIRM} rose by {number} % {time} .
    {PER} has signed a contract with {CLUB} until June .
    {FIRM} reported a profit of {number} million euros .
    {BODY} has appointed a new spokesperson {time} .
    The employees of {FIRM} are on strike {time} .
    The company {FIRM} reported a profit of {number} million {time} .
    {PER} is leaving {CLUB} after {number} matches .
    {BODY} has elected {PER} as its new chairperson .
    The chief executive of {FIRM} , {PER} , is stepping down .
    Great goals , and {CLUB} won the match 3-0 !
    {CLUB} won the match against {CLUB} 3-1 {time} .
    {BODY} is looking for new members in {CITY} .
    {FIRM} is cutting {number} jobs in {CITY} .
    {FIRM} is taking over its rival {FIRM} for {number} million euros .
    A spokesperson for {FIRM} promised the employees a bonus .
    A spokesperson for {FIRM} said its employees are on strike .
  """,
  ("en", "MISC"): """
    We watched the film {WORK} at the cinema {time} .
    The new version of {THING} has {number} extra features .
    Tickets for {EVENT} go on sale {time} .
    I am reading the book {WORK} for the second time .
    We watched {WORK} at the cinema for the second time .
    The premiere of the film {WORK} is in {CITY} {time} .
    The film {WORK} , directed by {PER} , is {number} years old .
    Product test : {THING} gets {number} points .
    We are all looking forward to {EVENT} .
    Tickets for {EVENT} cost {number} euros .
    The novel {WORK} by {PER} is on page one of every list .
    Special offer : {THING} for only {number} euros .
    Only {number} days until {EVENT} begins !
    The actors in the film {WORK} were brilliant .
    Product test : the new version of {THING} gets {number} points .
    {PER} sang a song from the musical {WORK} {time} .
    This year {EVENT} takes place in {CITY} .
    Special offer {time} : {THING} with a two-year warranty .
    Not even the actors could save the plot of {WORK} .
    Only {number} days until {EVENT} takes place in {CITY} !
  """,
  ("fr", "PER"): """
    {PER} , {age} ans , a vu le jour à {CITY} .
    {PER} , {age} ans , a deux enfants et vit à {CITY} .
    Joyeux anniversaire , {PER} , et tous nos vœux !
    La voix de {PER} a ému les invités pendant une interview {time} .
    {PER} , {age} ans , donne une interview {time} .
    « Je suis à bout de forces » , a dit {PER} pendant l' interview .
    « Nous allons revenir » , a dit {PER} à la presse après le match .
    {PER} a vu le jour à {CITY} et travaille dans une école .
    Félicitations à {PER} , qui vient de se marier !
    Joyeux anniversaire à {PER} , qui vient de se marier {time} !
    Selon les médecins , {PER} a un bras cassé .
    {PER} a parlé à la presse de son enfance à {CITY} .
    {PER} a dit à la presse : « Nous avons eu de la chance . »
    Le ministre {LAST} rencontre le président {LAST} {time} .
    « Nous avons eu de la chance » , a dit {PER} à la presse .
    Chez nous , {PER} a deux enfants et un chien .
    Le président {LAST} a serré la main de {PER} , {age} ans .
    L' entraîneur {LAST} , {age} ans , est content de son équipe .
    La mère de {PER} a grandi à {CITY} et a étudié le droit .
    Le ministre {LAST} , {age} ans , a grandi à {CITY} .
  """,
  ("fr", "LOC"): """
    Le maire de {CITY} démissionne {time} .
    Nous avons pris l' avion pour {CITY} et y sommes restés une semaine .
    Forte pluie et {number} degrés à {CITY} {time} .
    La route entre {CITY} et {CITY} est fermée {time} .
    Le maire de {CITY} ferme la vieille ville {time} .
    Les rues de {CITY} et de {CITY} sont vides {time} .
    Ils vont visiter {LAND} pendant l' été .
    Une tempête frappe {LAND} {time} .
    Nous avons traversé {LAND} en {number} jours .
    Forte pluie dans les rues de {CITY} {time} .
    Un hôtel dans la vieille ville de {CITY} coûte {number} euros .
    Cette carte montre {LAND} en détail .
    Une tempête passe au nord de {CITY} {time} .
    Notre train de {CITY} à {CITY} a {number} minutes de retard .
    {number} degrés et pas de pluie au nord de {CITY} {time} .
    L' entreprise {FIRM} construit un hôtel de {number} chambres près de {CITY} .
    Pendant les vacances , nous allons visiter {LAND} .
    L' aéroport de {CITY} est fermé {time} .
    {PER} , {age} ans , a pris l' avion pour {CITY} avec {number} amis .
    La route vers l' aéroport de {CITY} est fermée {time} .
  """,
  ("fr", "ORG"): """
    L' action de {FIRM} perd {number} % {time} .
    L' entreprise {FIRM} recrute {number} ingénieurs .
    {FIRM} annonce de bonnes ventes et son action gagne {number} % .
    {CLUB} a battu {CLUB} 2-1 à l' extérieur {time} .
    L' action de l' entreprise {FIRM} gagne {number} % {time} .
    {PER} a signé un contrat avec {CLUB} jusqu' en juin .
    {FIRM} annonce un bénéfice de {number} millions d' euros .
    {BODY} a nommé un nouveau porte-parole {time} .
    Les salariés de {FIRM} sont en grève {time} .
    L' entreprise {FIRM} annonce un bénéfice de {number} millions {time} .
    {PER} quitte {CLUB} après {number} matchs .
    {BODY} a élu {PER} à sa présidence .
    Le directeur général de {FIRM} , {PER} , quitte ses fonctions .
    Quels buts , {CLUB} a gagné le match 3-0 !
    {CLUB} a gagné le match contre {CLUB} 3-1 {time} .
    {BODY} cherche de nouveaux membres à {CITY} .
    {FIRM} supprime {number} emplois à {CITY} .
    {FIRM} rachète son concurrent {FIRM} pour {number} millions d' euros .
    Un porte-parole de {FIRM} a promis une prime aux salariés .
    Selon un porte-parole de {FIRM} , ses salariés sont en grève .
  """,
  ("fr", "MISC"): """
    Nous avons regardé le film {WORK} au cinéma {time} .
    La nouvelle version de {THING} a {number} fonctions de plus .
    Les billets pour {EVENT} sont en vente {time} .
    Je lis le livre {WORK} pour la deuxième fois .
    Nous avons regardé {WORK} au cinéma pour la deuxième fois .
    La première du film {WORK} a lieu à {CITY} {time} .
    Le film {WORK} , réalisé par {PER} , a {number} ans .
    Test du produit : {THING} obtient {number} points .
    Nous attendons tous {EVENT} avec impatience .
    Les billets pour {EVENT} coûtent {number} euros .
    Le roman {WORK} , écrit par {PER} , est partout .
    Offre spéciale : {THING} pour seulement {number} euros .
    Plus que {number} jours avant {EVENT} !
    Les acteurs du film {WORK} étaient formidables .
    Test du produit : la nouvelle version de {THING} obtient {number} points .
    {PER} a chanté un air de la comédie musicale {WORK} {time} .
    Cette année , {EVENT} aura lieu à {CITY} .
    Offre spéciale {time} : {THING} avec une garantie de deux ans .
    Malgré ses acteurs , {WORK} a une fin décevante .
    Plus que {number} jours avant {EVENT} à {CITY} !
  """,
  ("de", "PER"): """
    {PER} , {age} , wurde in {CITY} geboren .
    {PER} , {age} , hat zwei Kinder und lebt in {CITY} .
    Alles Gute zum Geburtstag , {PER} , und viel Glück !
    Die Stimme von {PER} war in einem Interview zu hören .
    {PER} , {age} , gibt {time} ein Interview .
    " Ich bin so müde " , sagte {PER} in dem Interview .
    " Wir kommen wieder " , sagte Trainer {LAST} nach dem Spiel .
    {PER} wurde in {CITY} geboren und arbeitet in einer Schule .
    Glückwunsch an {PER} zur Hochzeit und alles Gute !
    Alles Gute zum Geburtstag und zur Hochzeit an {PER} {time} !
    Die Ärzte sagen , dass {PER} einen gebrochenen Arm hat .
    {PER} erzählte den Reportern von einer Kindheit in {CITY} .
    {PER} sagte den Reportern : " Wir hatten Glück . "
    Minister {LAST} trifft {time} Präsident {LAST} .
    " Wir hatten Glück " , sagte {PER} den Reportern .
    Zu Hause hat {PER} zwei Kinder und einen Hund .
    Präsident {LAST} schüttelte {PER} , {age} , die Hand .
    Trainer {LAST} , {age} , ist mit der Mannschaft zufrieden .
    Die Mutter von {PER} ist in {CITY} aufgewachsen .
    Minister {LAST} , {age} , ist in {CITY} aufgewachsen .
  """,
  ("de", "LOC"): """
    Der Bürgermeister von {CITY} tritt {time} zurück .
    Wir sind nach {CITY} geflogen und eine Woche dort geblieben .
    Starker Regen und {number} Grad in {CITY} {time} .
    Die Straße von {CITY} nach {CITY} ist {time} gesperrt .
    Der Bürgermeister von {CITY} lässt {time} die Altstadt sperren .
    Die Straßen von {CITY} und {CITY} sind {time} leer .
    Sie wollen im Sommer {LAND} besuchen .
    Ein Sturm trifft {time} {LAND} .
    Wir haben {LAND} in {number} Tagen durchquert .
    Starker Regen in den Straßen von {CITY} {time} .
    Ein Hotel in der Altstadt von {CITY} kostet {number} Euro .
    Diese Karte zeigt {LAND} ganz genau .
    Ein Sturm zieht {time} über den Norden von {CITY} .
    Unser Zug von {CITY} nach {CITY} hat {number} Minuten Verspätung .
    {number} Grad und kein Regen im Norden von {CITY} {time} .
    Das Unternehmen {FIRM} baut ein Hotel mit {number} Zimmern bei {CITY} .
    In den Ferien werden wir {LAND} besuchen .
    Der Flughafen von {CITY} ist {time} gesperrt .
    {PER} , {age} , ist nach {CITY} geflogen und {number} Tage geblieben .
    Die Straße zum Flughafen von {CITY} ist {time} gesperrt .
  """,
  ("de", "ORG"): """
    Die Aktien von {FIRM} fallen {time} um {number} % .
    Das Unternehmen {FIRM} sucht {number} Ingenieure .
    {FIRM} meldet mehr Umsatz , die Aktien steigen um {number} % .
    {CLUB} hat {CLUB} {time} auswärts 2:1 geschlagen .
    Die Aktien des Unternehmens {FIRM} steigen {time} um {number} % .
    {PER} hat bei {CLUB} einen Vertrag bis Juni unterschrieben .
    {FIRM} meldet einen Gewinn von {number} Millionen Euro .
    {BODY} hat {time} einen neuen Sprecher ernannt .
    Die Mitarbeiter von {FIRM} sind {time} im Streik .
    Das Unternehmen {FIRM} meldet {time} {number} Millionen Gewinn .
    {PER} verlässt {CLUB} nach {number} Spielen .
    {BODY} hat {PER} in den Vorstand gewählt .
    Der Vorstand von {FIRM} , {PER} , verliert sein Amt .
    Was für Tore , {CLUB} hat das Spiel 3:0 gewonnen !
    {CLUB} hat {time} das Spiel gegen {CLUB} 3:1 gewonnen .
    {BODY} sucht neue Mitglieder in {CITY} .
    {FIRM} streicht {number} Stellen in {CITY} .
    {FIRM} kauft den Konkurrenten {FIRM} für {number} Millionen Euro .
    Ein Sprecher von {FIRM} hat den Mitarbeitern mehr Lohn versprochen .
    Laut einem Sprecher von {FIRM} sind die Mitarbeiter im Streik .
  """,
  ("de", "MISC"): """
    Wir haben {time} den Film {WORK} im Kino gesehen .
    Die neue Version von {THING} hat {number} weitere Funktionen .
    Karten für {EVENT} gibt es {time} .
    Ich lese das Buch {WORK} zum zweiten Mal .
    Wir haben {WORK} zum zweiten Mal im Kino gesehen .
    Die Premiere des Films {WORK} ist {time} in {CITY} .
    Der Film {WORK} , Regie : {PER} , ist {number} Jahre alt .
    Produkttest : {THING} bekommt {number} Punkte .
    Wir freuen uns alle auf {EVENT} .
    Karten für {EVENT} kosten {number} Euro .
    Der Roman {WORK} , geschrieben von {PER} , liegt überall .
    Sonderangebot : {THING} für nur {number} Euro .
    Nur noch {number} Tage , dann beginnt {EVENT} !
    Die Schauspieler in dem Film {WORK} waren großartig .
    Produkttest : Die neue Version von {THING} bekommt {number} Punkte .
    {PER} singt {time} ein Lied aus dem Musical {WORK} .
    In diesem Jahr findet {EVENT} in {CITY} statt .
    Sonderangebot {time} : {THING} mit zwei Jahren Garantie .
    Trotz der Schauspieler hat {WORK} ein schwaches Ende .
    Nur noch {number} Tage , dann beginnt {EVENT} in {CITY} !
  """,
  ("es", "PER"): """
    {PER} , de {age} años , nació en {CITY} .
    {PER} , de {age} años , tiene dos hijos y vive en {CITY} .
    ¡ Feliz cumpleaños , {PER} , y que cumplas muchos más !
    La voz de {PER} emocionó a todos en una entrevista {time} .
    {PER} , de {age} años , concede una entrevista {time} .
    « No puedo más » , dijo {PER} en la entrevista .
    « Vamos a volver » , dijo {PER} a la prensa después del partido .
    {PER} nació en {CITY} y trabaja en una escuela .
    ¡ Felicidades a {PER} , que acaba de casarse !
    ¡ Feliz cumpleaños a {PER} , que acaba de casarse {time} !
    Según los médicos , {PER} tiene un brazo roto .
    {PER} habló con la prensa de su infancia en {CITY} .
    {PER} dijo a la prensa : « Hemos tenido suerte . »
    El ministro {LAST} recibe al presidente {LAST} {time} .
    « Hemos tenido suerte » , dijo {PER} a la prensa .
    En casa , {PER} tiene dos hijos y un perro .
    El presidente {LAST} dio la mano a {PER} , de {age} años .
    El entrenador {LAST} , de {age} años , está contento con el equipo .
    La madre de {PER} creció en {CITY} y estudió derecho .
    El ministro {LAST} , de {age} años , creció en {CITY} .
  """,
  ("es", "LOC"): """
    El alcalde de {CITY} dimite {time} .
    Volamos a {CITY} y nos quedamos allí una semana .
    Mucha lluvia y {number} grados en {CITY} {time} .
    La carretera de {CITY} a {CITY} está cerrada {time} .
    El alcalde de {CITY} cierra el casco antiguo {time} .
    Las calles de {CITY} y de {CITY} están vacías {time} .
    Van a visitar {LAND} en verano .
    Una tormenta azota {LAND} {time} .
    Cruzamos {LAND} en {number} días .
    Mucha lluvia en las calles de {CITY} {time} .
    Un hotel en el casco antiguo de {CITY} cuesta {number} euros .
    Este mapa muestra {LAND} con todo detalle .
    Una tormenta pasa por el norte de {CITY} {time} .
    Nuestro tren de {CITY} a {CITY} lleva {number} minutos de retraso .
    {number} grados y nada de lluvia en el norte de {CITY} {time} .
    La empresa {FIRM} construye un hotel de {number} plantas cerca de {CITY} .
    En las vacaciones vamos a visitar {LAND} .
    El aeropuerto de {CITY} está cerrado {time} .
    {PER} , de {age} años , viajó a {CITY} con {number} amigos .
    La carretera al aeropuerto de {CITY} está cerrada {time} .
  """,
  ("es", "ORG"): """
    Las acciones de {FIRM} bajan un {number} % {time} .
    La empresa {FIRM} contrata a {number} ingenieros .
    {FIRM} anuncia más ventas y sus acciones suben un {number} % .
    {CLUB} ganó 2-1 contra {CLUB} fuera de casa {time} .
    Las acciones de la empresa {FIRM} suben un {number} % {time} .
    {PER} firmó un contrato con {CLUB} hasta junio .
    {FIRM} anuncia un beneficio de {number} millones de euros .
    {BODY} ha nombrado un nuevo portavoz {time} .
    Los empleados de {FIRM} están en huelga {time} .
    La empresa {FIRM} anuncia un beneficio de {number} millones {time} .
    {PER} deja {CLUB} después de {number} partidos .
    {BODY} ha elegido a {PER} para la presidencia .
    El director general de {FIRM} , {PER} , deja el cargo .
    ¡ Qué goles , {CLUB} ganó el partido 3-0 !
    {CLUB} ganó el partido contra {CLUB} por 3-1 {time} .
    {BODY} busca nuevos miembros en {CITY} .
    {FIRM} recorta {number} empleos en {CITY} .
    {FIRM} compra a su rival {FIRM} por {number} millones de euros .
    Un portavoz de {FIRM} prometió una paga extra a los empleados .
    Según un portavoz de {FIRM} , sus empleados están en huelga .
  """,
  ("es", "MISC"): """
    Vimos la película {WORK} en el cine {time} .
    La nueva versión de {THING} tiene {number} funciones más .
    Las entradas para {EVENT} salen a la venta {time} .
    Estoy leyendo el libro {WORK} por segunda vez .
    Vimos {WORK} en el cine por segunda vez .
    El estreno de la película {WORK} es en {CITY} {time} .
    La película {WORK} , dirigida por {PER} , tiene {number} años .
    Prueba del producto : {THING} recibe {number} puntos .
    Todos esperamos {EVENT} con ilusión .
    Las entradas para {EVENT} cuestan {number} euros .
    La novela {WORK} , escrita por {PER} , está en todas partes .
    Oferta especial : {THING} por solo {number} euros .
    ¡ Solo faltan {number} días para {EVENT} !
    Los actores de la película {WORK} son magníficos .
    Prueba del producto : la nueva versión de {THING} recibe {number} puntos .
    {PER} cantó una canción del musical {WORK} {time} .
    Este año {EVENT} tiene lugar en {CITY} .
    Oferta especial {time} : {THING} con dos años de garantía .
    A pesar de los actores , {WORK} tiene un final flojo .
    ¡ Solo faltan {number} días para {EVENT} en {CITY} !
  """,
}

_NEUTRAL = {
  "en": """
    Everyone is talking about {ANY} {time} .
    {ANY} again !
    This is {ANY} .
    More about {ANY} {time} .
    Everyone is talking about {ANY} again !
    RT : {ANY} !
    # {ANY}
    LOL , {ANY} again {time} ...
    I like {ANY} .
    RT : # {ANY} {time}
    Nothing beats {ANY} .
    My photo of {ANY} {time} .
    Do you like {ANY} ?
    I was thinking about {ANY} {day} .
    My photo of {ANY} {day} , do you like it ?
    {ANY} , always a good topic .
    What do you think of {ANY} ?
    I love {ANY} , who else ?
    Picture of the day : {ANY}
    Picture of the week : {ANY} , taken {day}
    Once more : {ANY} !
    A few words about {ANY} {time} .
    So , this is {ANY} ...
    {ANY} {time} :)
    So , {ANY} once more {time} ...
    New post about {ANY} {day}
    I dreamt about {ANY} again .
    Guess what I saw {day} : {ANY} !
    Nobody mentions {ANY} any more .
    Guess what I dreamt about {day} : {ANY} again .
    Why is nobody talking about {ANY} {time} ?
    We need to talk about {ANY} .
    OMG , {ANY} !!!
    Topic of the day : {ANY}
    We need to talk about {ANY} {time} .
    Read more about {ANY} here .
    Never forget {ANY} .
    {ANY} , as always {time} .
    And now : {ANY} .
    Read a few words about {ANY} {time} .
  """,
  "fr": """
    Tout le monde parle de {ANY} {time} .
    Encore {ANY} !
    Voici {ANY} .
    Plus d' infos sur {ANY} {time} .
    Tout le monde parle encore de {ANY} !
    RT : {ANY} !
    # {ANY}
    MDR , encore {ANY} {time} ...
    J' aime bien {ANY} .
    RT : # {ANY} {time}
    Rien ne vaut {ANY} .
    Ma photo de {ANY} {time} .
    Vous aimez {ANY} ?
    Je pensais à {ANY} {day} .
    Ma photo de {ANY} {day} , vous aimez ?
    {ANY} , toujours un bon sujet .
    Que pensez-vous de {ANY} ?
    J' adore {ANY} , et vous ?
    Image du jour : {ANY}
    Image de la semaine : {ANY} , prise {day}
    Une fois de plus : {ANY} !
    Quelques mots sur {ANY} {time} .
    Alors , c' est ça , {ANY} ...
    {ANY} {time} :)
    Alors , une fois de plus {ANY} {time} ...
    Nouvel article sur {ANY} {day}
    J' ai encore rêvé de {ANY} .
    Devinez ce que j' ai vu {day} : {ANY} !
    Plus personne ne parle de {ANY} .
    Devinez de quoi j' ai rêvé {day} : encore {ANY} .
    Pourquoi personne ne parle de {ANY} {time} ?
    Il faut parler de {ANY} .
    OMG , {ANY} !!!
    Sujet du jour : {ANY}
    Il faut parler de {ANY} {time} .
    Tout savoir sur {ANY} ici .
    On n' oublie jamais {ANY} .
    {ANY} , comme toujours {time} .
    Et maintenant : {ANY} .
    Ici , quelques mots sur {ANY} {time} .
  """,
  "de": """
    Alle reden {time} über {ANY} .
    Schon wieder {ANY} !
    Das ist {ANY} .
    Mehr über {ANY} {time} .
    Alle reden schon wieder über {ANY} !
    RT : {ANY} !
    # {ANY}
    LOL , {time} schon wieder {ANY} ...
    Ich mag {ANY} .
    RT : # {ANY} {time}
    Nichts geht über {ANY} .
    Mein Foto von {ANY} {time} .
    Mögt ihr {ANY} ?
    Ich habe {day} an {ANY} gedacht .
    Mein Foto von {ANY} {day} , mögt ihr es ?
    {ANY} , immer ein gutes Thema .
    Was haltet ihr von {ANY} ?
    Ich liebe {ANY} , wer noch ?
    Bild des Tages : {ANY}
    Bild der Woche : {ANY} , aufgenommen {day}
    Noch einmal : {ANY} !
    Ein paar Worte über {ANY} {time} .
    So , das ist also {ANY} ...
    {ANY} {time} :)
    So , {time} noch einmal {ANY} ...
    Neuer Beitrag über {ANY} {day}
    Ich habe schon wieder von {ANY} geträumt .
    Ratet mal , was ich {day} gesehen habe : {ANY} !
    Niemand erwähnt mehr {ANY} .
    Ratet mal , wovon ich {day} geträumt habe : {ANY} .
    Warum redet {time} niemand über {ANY} ?
    Wir müssen über {ANY} reden .
    OMG , {ANY} !!!
    Thema des Tages : {ANY}
    Wir müssen {time} über {ANY} reden .
    Mehr über {ANY} gibt es hier .
    {ANY} vergisst man nie .
    {ANY} , wie immer {time} .
    Und jetzt : {ANY} .
    Hier ein paar Worte mehr über {ANY} {time} .
  """,
  "es": """
    Todo el mundo habla de {ANY} {time} .
    ¡ Otra vez {ANY} !
    Esto es {ANY} .
    Más sobre {ANY} {time} .
    ¡ Todo el mundo habla otra vez de {ANY} !
    RT : ¡ {ANY} !
    # {ANY}
    Jajaja , otra vez {ANY} {time} ...
    Me gusta {ANY} .
    RT : # {ANY} {time}
    No hay nada como {ANY} .
    Mi foto de {ANY} {time} .
    ¿ Os gusta {ANY} ?
    Pensaba en {ANY} {day} .
    Mi foto de {ANY} {day} , ¿ os gusta ?
    {ANY} , siempre un buen tema .
    ¿ Qué pensáis de {ANY} ?
    Me encanta {ANY} , ¿ a quién más ?
    Imagen del día : {ANY}
    Imagen de la semana : {ANY} {day}
    Una vez más : ¡ {ANY} !
    Unas palabras sobre {ANY} {time} .
    Así que esto es {ANY} ...
    {ANY} {time} :)
    Así que una vez más {ANY} {time} ...
    Nueva entrada sobre {ANY} {day}
    He vuelto a soñar con {ANY} .
    Adivinad lo que vi {day} : ¡ {ANY} !
    Ya nadie menciona el nombre de {ANY} .
    Adivinad con qué soñé {day} : otra vez con {ANY} .
    ¿ Por qué nadie habla de {ANY} {time} ?
    Tenemos que hablar de {ANY} .
    OMG , ¡ {ANY} !
    Tema del día : {ANY}
    Tenemos que hablar de {ANY} {time} .
    Aquí hay más sobre {ANY} .
    Nunca olvidaremos el nombre de {ANY} .
    {ANY} , como siempre {time} .
    Y ahora : {ANY} .
    Aquí hay unas palabras más sobre {ANY} {time} .
  """,
}


def _lines(block: str, held_out: bool) -> tuple[str, ...]:
  lines = [line.strip() for line in block.strip().splitlines()]
  return tuple(
    line
    for i, line in enumerate(lines)
    if (i % HELD_OUT == HELD_OUT - 1) == held_out
  )


@functools.cache
def clear(language: str, kind: str, held_out: bool = False) -> tuple[str, ...]:
  """The templates whose words tell the types, of one of the four types."""
  return _lines(_CLEAR[language, kind], held_out)


@functools.cache
def neutral(language: str, held_out: bool = False) -> tuple[str, ...]:
  """The templates whose words say nothing about the type of {ANY}."""
  return _lines(_NEUTRAL[language], held_out)


@functools.cache
def fillers(language: str, name: str) -> tuple[str, ...]:
  """The word groups that may stand for {day}, {time}, {number} or {age}."""
  if name in ("number", "age"):
    return tuple((_NUMBERS if name == "number" else _AGES).split())
  return tuple(group.strip() for group in _FILLERS[language][name].split(","))


def _elides(before: list[str], name: str) -> bool:
  """Whether French writes the word before the name as "d'"."""
  return before[-1:] == ["de"] and name[0] in "AEIOUÀÂÉÈÊÎÔi"


class Draft(NamedTuple):
  """A filled template."""

  words: list[str]
  tags: list[str]
  types: list[str]  # of the entities, in order


def fill(
  template: str,
  language: str,
  rng: np.random.Generator,
  choose: Callable[[str], tuple[str, str]],
) -> Draft:
  """Fills a template; `choose` gives a slot's name and its type."""
  words, tags, types = [], [], []
  for token in template.split():
    slot = token[1:-1]
    if not token.startswith("{"):
      outside, name = [token], []
    elif slot.islower():
      filler = names.pick(rng, fillers(language, slot))
      outside, name = filler.split(), []
    else:
      text, entity_type = choose(slot)
      outside, name = names.split_article(text)
      types.append(entity_type)
      if language == "fr" and _elides(words, text):
        words[-1] = "d'"
    words += outside + name
    tags += ["O"] * len(outside)
    tags += [f"{'I' if i else 'B'}-{types[-1]}" for i in range(len(name))]
  if tags[0] == "O":
    words[0] = words[0][0].upper() + words[0][1:]
  return Draft(words, tags, types)
